/* SPDX-License-Identifier: MIT */
/*
 * The names of the agent's Varlink interface, and its description.  Text only.
 */
#ifndef FIRN_PROTO_INTERFACE_H
#define FIRN_PROTO_INTERFACE_H

#define FIRN_INTERFACE "org.firn.Agent"
#define FIRN_INTERFACE_SERVICE "org.varlink.service"

#define FIRN_METHOD_FREEZE "org.firn.Agent.Freeze"
#define FIRN_METHOD_EVICT "org.firn.Agent.Evict"
#define FIRN_METHOD_THAW "org.firn.Agent.Thaw"
#define FIRN_METHOD_LIST "org.firn.Agent.List"
#define FIRN_METHOD_SHOW "org.firn.Agent.Show"
#define FIRN_METHOD_EXPLAIN "org.firn.Agent.Explain"
#define FIRN_METHOD_RECLAIM "org.firn.Agent.Reclaim"
#define FIRN_METHOD_PRIORITY "org.firn.Agent.Priority"
#define FIRN_METHOD_RUN "org.firn.Agent.Run"
#define FIRN_METHOD_STATS "org.firn.Agent.Stats"
#define FIRN_METHOD_MONITOR "org.firn.Agent.Monitor"
#define FIRN_METHOD_PING "org.firn.Agent.Ping"
#define FIRN_METHOD_STOP "org.firn.Agent.Stop"
#define FIRN_METHOD_GET_INFO "org.varlink.service.GetInfo"
#define FIRN_METHOD_GET_DESCRIPTION "org.varlink.service.GetInterfaceDescription"

/* Parameters: code, reason, message. */
#define FIRN_ERROR_FAILED "org.firn.Agent.Failed"
/* Parameters: interface; method; method; parameter. */
#define FIRN_ERROR_INTERFACE_NOT_FOUND "org.varlink.service.InterfaceNotFound"
#define FIRN_ERROR_METHOD_NOT_FOUND "org.varlink.service.MethodNotFound"
#define FIRN_ERROR_METHOD_NOT_IMPLEMENTED "org.varlink.service.MethodNotImplemented"
#define FIRN_ERROR_INVALID_PARAMETER "org.varlink.service.InvalidParameter"

/* The parameter place, and the member of a pack; a pack is in one of the first two. */
#define FIRN_PACK_PLACE_STORE "store"
#define FIRN_PACK_PLACE_RAM "ram"
#define FIRN_PACK_PLACE_RAM_STORE "ram,store"
/* The parameter after, in seconds: where it is not given, and at most. */
#define FIRN_MOVE_AFTER_S 300
#define FIRN_MOVE_AFTER_MAX_S (365 * 86400)

/* The number order of enum firn_method is that of no wire: it is for a switch. */
enum firn_method {
	FIRN_CALL_UNKNOWN,
	FIRN_CALL_FREEZE,
	FIRN_CALL_EVICT,
	FIRN_CALL_THAW,
	FIRN_CALL_LIST,
	FIRN_CALL_SHOW,
	FIRN_CALL_EXPLAIN,
	FIRN_CALL_RECLAIM,
	FIRN_CALL_PRIORITY,
	FIRN_CALL_RUN,
	FIRN_CALL_STATS,
	FIRN_CALL_MONITOR,
	FIRN_CALL_PING,
	FIRN_CALL_STOP,
	FIRN_CALL_GET_INFO,
	FIRN_CALL_GET_DESCRIPTION,
};

/* The method of that full name, FIRN_CALL_UNKNOWN where there is none.  Any thread. */
enum firn_method firn_method_find(const char *name);

/* The description of an interface in Varlink's language, or NULL where @interface is none of ours.
 * Static. */
const char *firn_interface_description(const char *interface);

#endif
