/* SPDX-License-Identifier: MIT */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int firn_err_set(struct firn_err *e, int code, int err, const char *reason, const char *fmt, ...)
{
	va_list ap;

	if (e && !e->code) {
		e->code = code;
		e->err = err;
		snprintf(e->reason, sizeof(e->reason), "%s", reason);
		va_start(ap, fmt);
		vsnprintf(e->message, sizeof(e->message), fmt, ap);
		va_end(ap);
	}
	return err ? -err : -EINVAL;
}

void firn_err_clear(struct firn_err *e)
{
	memset(e, 0, sizeof(*e));
}
