/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose container or unit a process is part of, by cgroup paths as they are met.
 */
#include "storage/worker/scan_parse.h"

#include <stdio.h>

#include "tests/unit/unit.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define ID2 "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
#define POD "poda1b2c3d4_0000_1111_2222_333344445555"

struct sample {
    const char *cgroup;
    const char *id;
    const char *runtime;
    const char *unit;
};

static const struct sample samples[] = {
    /* no container */
    {"/system.slice/cron.service", NULL, NULL, "cron.service"},
    {"/user.slice/user-1000.slice/session-3.scope", NULL, NULL, "session-3.scope"},
    {"/user.slice/user-1000.slice/user@1000.service/app.slice/app-a\\x2db-1.scope", NULL,
     NULL, "app-a\\x2db-1.scope"},
    {"/system.slice/system-getty.slice/getty@tty1.service", NULL, NULL,
     "getty@tty1.service"},
    {"/system.slice/_cpu.service", NULL, NULL, "cpu.service"},
    {"/init.scope", NULL, NULL, "init.scope"},
    {"/machine.slice/machine-qemu\\x2d1.scope/libvirt/emulator", NULL, NULL,
     "machine-qemu\\x2d1.scope"},
    {"/", NULL, NULL, NULL},
    {"", NULL, NULL, NULL},
    /* docker, by systemd and by cgroupfs */
    {"/system.slice/docker-" ID ".scope", ID, "docker", NULL},
    {"/docker/" ID, ID, "docker", NULL},
    {"/docker/" ID "/system.slice/nginx.service", ID, "docker", "nginx.service"},
    {"/system.slice/docker-" ID ".scope/system.slice/nginx.service", ID, "docker",
     "nginx.service"},
    {"/docker/" ID "/docker/" ID2, ID2, "docker", NULL},
    {"/system.slice/docker.service", NULL, NULL, "docker.service"},
    {"/custom/" ID, ID, NULL, NULL},
    /* podman, of root and of a user */
    {"/machine.slice/libpod-" ID ".scope/container", ID, "podman", NULL},
    {"/machine.slice/libpod-conmon-" ID ".scope", ID, "podman", NULL},
    {"/libpod_parent/libpod-" ID, ID, "podman", NULL},
    {"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" ID
     ".scope/container",
     ID, "podman", "user@1000.service"},
    /* containerd, CRI-O and docker below kubelet */
    {"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-" POD
     ".slice/cri-containerd-" ID ".scope",
     ID, "containerd", NULL},
    {"/system.slice/containerd.service/kubepods-burstable-" POD
     ".slice:cri-containerd:" ID,
     ID, "containerd", "containerd.service"},
    {"/kubepods/burstable/" POD "/" ID, ID, NULL, NULL},
    {"/kubepods.slice/kubepods-" POD ".slice/crio-" ID ".scope", ID, "cri-o", NULL},
    {"/kubepods.slice/kubepods-" POD ".slice/crio-conmon-" ID ".scope", ID, "cri-o",
     NULL},
    {"/kubepods/besteffort/" POD "/crio-" ID, ID, "cri-o", NULL},
    {"/kubepods.slice/kubepods-" POD ".slice/docker-" ID ".scope", ID, "docker", NULL},
    {"/kubelet.slice/kubelet-kubepods.slice/cri-containerd-" ID ".scope", ID,
     "containerd", NULL},
    /* what a user may call a group of his own */
    {"/x/" ID "0", NULL, NULL, NULL},
    {"/x/z" ID, NULL, NULL, NULL},
    {"/mydocker-" ID ".scope", ID, NULL, NULL},
    {"/.service/.scope/_.service", NULL, NULL, ".service"},
    {"//a.service//", NULL, NULL, "a.service"},
    {"/a.service.d/b.scopes", NULL, NULL, NULL},
};

static void assert_text(const char *cgroup, const char *text, const char *expected)
{
    if (!text != !expected || (text && strcmp(text, expected) != 0))
        fail_msg("%s: %s instead of %s", cgroup, text ? text : "nothing",
                 expected ? expected : "nothing");
}

static void test_container_runtime_and_unit_of_real_paths(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        const struct sample *sample = &samples[i];
        char id[MR_CONTAINER_ID_LEN + 1];
        char unit[256];
        bool has_id = mr_container_id(sample->cgroup, id);
        bool has_unit = mr_cgroup_unit(sample->cgroup, unit, sizeof(unit));
        assert_text(sample->cgroup, has_id ? id : NULL, sample->id);
        assert_text(sample->cgroup, mr_container_runtime(sample->cgroup),
                    sample->runtime);
        assert_text(sample->cgroup, has_unit ? unit : NULL, sample->unit);
    }
}

static void test_unit_that_does_not_fit_is_none(void **state)
{
    char unit[10];

    (void)state;
    assert_false(mr_cgroup_unit("/too-long.service", unit, sizeof(unit)));
    assert_true(mr_cgroup_unit("/a.service", unit, sizeof(unit)));
    assert_string_equal(unit, "a.service");
}

static void test_cgroup_of_v2_before_v1(void **state)
{
    char both[] =
        "4:memory:/user.slice\n1:name=systemd:/user.slice/longest\n0::/a.slice\n";
    char v1[] = "4:memory:/docker/ab\n3:cpu:/\n0::/\n";
    char hybrid[] = "12:pids:/docker/" ID "\n1:name=systemd:/docker/" ID
                    "\n0::/system.slice/containerd.service\n";
    char colons[] = "1:name=systemd:/system.slice/a:b:c\n";
    char v2_first[] = "0::/\n1:name=systemd:/a.slice\n";
    char none[] = "nonsense\n\n";

    (void)state;
    assert_string_equal(mr_parse_cgroup(both), "/a.slice");
    assert_string_equal(mr_parse_cgroup(v1), "/docker/ab");
    assert_string_equal(mr_parse_cgroup(hybrid), "/docker/" ID);
    assert_string_equal(mr_parse_cgroup(colons), "/system.slice/a:b:c");
    assert_string_equal(mr_parse_cgroup(v2_first), "/a.slice");
    assert_string_equal(mr_parse_cgroup(none), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_container_runtime_and_unit_of_real_paths),
        cmocka_unit_test(test_unit_that_does_not_fit_is_none),
        cmocka_unit_test(test_cgroup_of_v2_before_v1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
