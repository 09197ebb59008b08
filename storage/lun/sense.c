/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/sense.h"

#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdlib.h>
#include <string.h>

#define KEY_RECOVERED_ERROR 0x1
#define KEY_DATA_PROTECT 0x7
#define KEY_ABORTED_COMMAND 0xb
#define ASC_PROTECTION 0x10 /* as in ASC's high byte: the data itself is wrong */
#define ASC_RESET 0x29
#define ASC_COMMANDS_CLEARED 0x2f

static struct mr_answer classify_sense(unsigned key, unsigned asc)
{
    switch (key) {
    case KEY_RECOVERED_ERROR:
        return (struct mr_answer){MR_ANSWER_GOOD, 0};
    case MR_SENSE_UNIT_ATTENTION:
        return (struct mr_answer){MR_ANSWER_RETRY, EIO};
    case KEY_ABORTED_COMMAND:
        if (asc >> 8 == ASC_PROTECTION)
            return (struct mr_answer){MR_ANSWER_FAILED, EIO};
        return (struct mr_answer){MR_ANSWER_RETRY_LATER, EIO};
    case MR_SENSE_NOT_READY:
        if (asc == MR_ASC_BECOMING_READY || asc == MR_ASC_ALUA_TRANSITION)
            return (struct mr_answer){MR_ANSWER_RETRY_LATER, EIO};
        return (struct mr_answer){MR_ANSWER_FAILED, EIO};
    case MR_SENSE_ILLEGAL_REQUEST:
        return (struct mr_answer){MR_ANSWER_FAILED, EREMOTEIO};
    case KEY_DATA_PROTECT:
        return (struct mr_answer){MR_ANSWER_FAILED,
                                  asc == MR_ASC_SPACE_ALLOCATION_FAILED ? ENOSPC : EROFS};
    default:
        return (struct mr_answer){MR_ANSWER_FAILED, EIO};
    }
}

struct mr_answer mr_answer_classify(int status, unsigned key, unsigned asc)
{
    switch (status) {
    case SCSI_STATUS_GOOD:
    case SCSI_STATUS_CONDITION_MET:
        return (struct mr_answer){MR_ANSWER_GOOD, 0};
    case SCSI_STATUS_CHECK_CONDITION:
        return classify_sense(key, asc);
    case SCSI_STATUS_RESERVATION_CONFLICT:
        return (struct mr_answer){MR_ANSWER_FAILED, EBADE};
    case SCSI_STATUS_BUSY:
    case SCSI_STATUS_TASK_SET_FULL:
    case SCSI_STATUS_TASK_ABORTED:
        return (struct mr_answer){MR_ANSWER_RETRY_LATER, EIO};
    default:
        return (struct mr_answer){MR_ANSWER_FAILED, EIO};
    }
}

bool mr_sense_is_deferred(unsigned response_code)
{
    return response_code == SCSI_SENSE_FIXED_DEFERRED_ERRORS ||
           response_code == SCSI_SENSE_DESCRIPTOR_DEFERRED_ERRORS;
}

unsigned mr_answer_attention(int status, unsigned key, unsigned asc)
{
    if (status == SCSI_STATUS_RESERVATION_CONFLICT)
        return MR_ATTENTION_RESERVATION;
    if (status == SCSI_STATUS_CHECK_CONDITION && key == MR_SENSE_ILLEGAL_REQUEST &&
        asc == MR_ASC_LUN_NOT_SUPPORTED)
        return MR_ATTENTION_IDENTITY;
    if (status != SCSI_STATUS_CHECK_CONDITION || key != MR_SENSE_UNIT_ATTENTION)
        return 0;
    if (asc >> 8 == ASC_RESET)
        return MR_ATTENTION_RESET | MR_ATTENTION_ABORTED;
    if (asc >> 8 == ASC_COMMANDS_CLEARED)
        return MR_ATTENTION_ABORTED;
    if (asc == MR_ASC_CAPACITY_CHANGED)
        return MR_ATTENTION_CAPACITY;
    if (asc >= MR_ASC_RESERVATIONS_PREEMPTED && asc <= MR_ASC_REGISTRATIONS_PREEMPTED)
        return MR_ATTENTION_RESERVATION;
    if (asc == MR_ASC_INQUIRY_CHANGED || asc == MR_ASC_IDENTIFIER_CHANGED ||
        asc == MR_ASC_LUNS_CHANGED)
        return MR_ATTENTION_IDENTITY;
    return 0;
}

unsigned mr_login_status(const char *text)
{
    const char *open = strstr(text, "Status: ");
    char *end;
    unsigned long value;

    if (open)
        open = strchr(open, '(');
    if (!open)
        return 0;
    value = strtoul(open + 1, &end, 10);
    return *end == ')' && value <= 0xffff ? (unsigned)value : 0;
}
