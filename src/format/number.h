/*-------------------------------------------------------------------------
 *
 * number.h
 *	  Numbers as JSON and CSV write them, read without a function call.  Private
 *	  to format/.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_NUMBER_H
#define KDA_NUMBER_H

#include "kda_stream.h"

/* Decimal text without blanks as an integer; NULL on success, else what is wrong. */
extern const char *kda_read_integer(const char *p, int len, int64 *out);
/* A JSON number as a float; false if it is out of range.  A double made shorter would be rounded twice. */
extern bool kda_read_float4(const char *p, int len, float *out);
extern bool kda_read_float8(const char *p, int len, double *out);
/* A string as JSON would write the number: no hexadecimal digits, no "nan". */
extern bool kda_looks_like_number(const char *p, int len);

#endif							/* KDA_NUMBER_H */
