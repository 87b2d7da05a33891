package doctor

import (
	"cmp"
	"slices"
	"time"
)

// Severity is the effect of a finding on traffic.
type Severity string

const (
	// SeverityError: requests fail or reach the wrong process, or the findings are
	// unreliable.
	SeverityError Severity = "error"
	// SeverityWarning: requests will fail in a foreseeable case.
	SeverityWarning Severity = "warning"
	// SeverityNotice: for information; often intended.
	SeverityNotice Severity = "notice"
)

// severities are in the order of a report.
var severities = []Severity{SeverityError, SeverityWarning, SeverityNotice}

// Code identifies a kind of finding. Codes do not change between versions.
type Code string

// The codes, as docs/doctor.md lists them.
const (
	CodeNoLeader Code = "no-leader"

	CodeACLAnonymous Code = "acl-anonymous"
	CodeACLFiltered  Code = "acl-filtered"
	CodeACLService   Code = "acl-service"
	CodeACLAgent     Code = "acl-agent"

	CodeServiceMissing Code = "service-missing"
	CodeServiceEmpty   Code = "service-empty"
	CodeServiceRefused Code = "service-refused"
	CodeServiceName    Code = "service-name"

	CodeNoPort          Code = "no-port"
	CodeNoTaggedAddress Code = "no-tagged-address"
	CodeLoopback        Code = "loopback-address"
	CodeRefused         Code = "refused-address"
	CodeUnreachable     Code = "unreachable"

	CodeDuplicate        Code = "duplicate"
	CodeDuplicateAddress Code = "duplicate-address"
	CodeSharedAddress    Code = "shared-address"
	CodeOtherService     Code = "other-service"

	CodeMeshIdentity Code = "mesh-identity"
	CodeMeshRoot     Code = "mesh-root"
	CodeMeshRefused  Code = "mesh-refused"
	CodeMeshMissing  Code = "mesh-missing"
	CodeMeshDenied   Code = "mesh-denied"
	CodeMeshProtocol Code = "mesh-protocol"
	CodeMeshChain    Code = "mesh-chain"
	CodeMeshSidecar  Code = "mesh-sidecar"
	CodeMeshSource   Code = "mesh-source"

	CodeTagBad      Code = "tag-bad"
	CodeTagConflict Code = "tag-conflict"
	CodeTagRefused  Code = "tag-refused"
	CodeTagsDiffer  Code = "tags-differ"

	CodeDeadNode     Code = "dead-node"
	CodeNoAgent      Code = "no-agent"
	CodeCriticalLong Code = "critical-long"
	CodeCritical     Code = "critical"
	CodeNoCheck      Code = "no-check"

	CodeUnrouted Code = "unrouted"
	CodeUnused   Code = "unused"

	CodeUDPBuffer Code = "udp-buffer"
)

// codes are in the order of a report.
var codes = []Code{
	CodeNoLeader,
	CodeACLAnonymous, CodeACLFiltered, CodeACLService, CodeACLAgent,
	CodeServiceMissing, CodeServiceEmpty, CodeServiceRefused, CodeServiceName,
	CodeNoPort, CodeNoTaggedAddress, CodeLoopback, CodeRefused, CodeUnreachable,
	CodeMeshIdentity, CodeMeshRoot, CodeMeshRefused, CodeMeshMissing, CodeMeshDenied, CodeMeshProtocol, CodeMeshChain, CodeMeshSource, CodeMeshSidecar,
	CodeDuplicate, CodeDuplicateAddress, CodeSharedAddress, CodeOtherService,
	CodeTagBad, CodeTagConflict, CodeTagRefused, CodeTagsDiffer,
	CodeDeadNode, CodeNoAgent, CodeCriticalLong, CodeCritical, CodeNoCheck,
	CodeUnrouted, CodeUnused, CodeUDPBuffer,
}

// Finding is one problem.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     Code     `json:"code"`

	Service string `json:"service,omitempty"`
	ID      string `json:"id,omitempty"` // of the instance
	Node    string `json:"node,omitempty"`
	Address string `json:"address,omitempty"` // "host:port"

	Seen    string `json:"seen"`              // the observation
	Why     string `json:"why"`               // the effect
	Do      string `json:"do"`                // the remedy
	Command string `json:"command,omitempty"` // for a shell
	Policy  string `json:"policy,omitempty"`  // required ACL policy, in HCL

	Fix *Fix `json:"fix,omitempty"` // of a duplicate
}

// Fix is how Doctor.Fix would remove a duplicate.
type Fix struct {
	Possible bool   `json:"possible"`
	WhyNot   string `json:"why_not,omitempty"` // if not Possible
	// Confirm: WhyNot says only that the address may not be unique, so it is possible
	// after the operator confirms that both registrations are for the same process.
	Confirm bool `json:"confirm,omitempty"`

	Agent string `json:"agent,omitempty"` // URL of the agent that registered it
	// The registration that stays.
	KeepID   string `json:"keep_id"`
	KeepNode string `json:"keep_node"`
}

// compare orders findings, the worst first.
func compare(a, b Finding) int {
	return cmp.Or(
		cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity)),
		cmp.Compare(slices.Index(codes, a.Code), slices.Index(codes, b.Code)),
		cmp.Compare(a.Service, b.Service),
		cmp.Compare(a.ID, b.ID),
		cmp.Compare(a.Node, b.Node),
		cmp.Compare(a.Address, b.Address),
		cmp.Compare(a.Seen, b.Seen),
	)
}

// SchemaVersion is the version of a Report's JSON. It increases when a field is removed
// or changes its meaning.
const SchemaVersion = 1

type Report struct {
	Schema int       `json:"schema"` // SchemaVersion
	Time   time.Time `json:"time"`

	Agent    Agent            `json:"agent"`
	Looked   Looked           `json:"looked_at"`
	Count    map[Severity]int `json:"count"`    // of findings, of each severity
	Findings []Finding        `json:"findings"` // never nil
	Fixed    []Fixed          `json:"fixes,omitempty"`
}

// Looked is the extent and the cost of an examination.
type Looked struct {
	Datacenter string `json:"datacenter,omitempty"`
	Services   int    `json:"services"`
	Instances  int    `json:"instances"`
	Nodes      int    `json:"nodes"`
	Queries    uint64 `json:"queries"` // to the agent
	Bytes      uint64 `json:"bytes"`   // received from it
	Millis     int64  `json:"ms"`
}

// count returns the number of findings of each severity.
func count(findings []Finding) map[Severity]int {
	c := make(map[Severity]int)
	for _, s := range severities {
		c[s] = 0
	}
	for _, f := range findings {
		c[f.Severity]++
	}
	return c
}
