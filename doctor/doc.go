// Package doctor finds problems in Consul's catalog that matter to a load balancer.
// docs/doctor.md lists the findings, their cost, and the JSON of a [Report].
//
// [Doctor.Examine] gathers [Facts] with few queries; [Diagnose], which is pure, turns
// them into findings. [Doctor.Fix] deregisters a duplicate through the agent that
// registered it: the only change to Consul.
package doctor
