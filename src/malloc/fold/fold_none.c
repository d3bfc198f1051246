/* SPDX-License-Identifier: MIT */
/* Placeholder until the folder lands. */
#include "malloc/fold/fold.h"
bool firn_fold_tick(bool idle){(void)idle;return false;}
void firn_fold_release(struct firn_span*s,uint16_t p){(void)s;(void)p;}
void firn_fold_before_fork(void){}
void firn_fold_after_fork(bool c){(void)c;}
