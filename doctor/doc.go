// Package doctor says what is wrong in Consul's catalog from the point of view
// of a load balancer: duplicates and ghosts, instances on dead nodes, without a
// check, critical for long, at addresses that cannot work; services that the
// configuration wants and Consul does not have; and what ACLs hide.
//
// It works in two steps. [Doctor.Examine] gathers [Facts], with few queries,
// and [Diagnose], which is pure, turns facts into findings. [Doctor.Fix] takes a
// duplicate away, through the agent that registered it. That is the only thing
// that changes Consul.
//
// docs/doctor.md is the manual: each finding, what it costs, and the JSON of a
// [Report].
package doctor
