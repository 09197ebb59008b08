# SPDX-License-Identifier: Apache-2.0
"""Drives a real mooringd against real targets, devices and file systems."""
