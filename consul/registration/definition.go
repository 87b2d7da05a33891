package registration

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/config/units"
	"sluice/discovery/locality"
)

// metaAgent is the key of the meta with the URL of the agent that has the registration.
const metaAgent = "sluice-agent"

// CheckType is the kind of Consul's check.
type CheckType string

const (
	// CheckAuto: CheckHTTP if the agent can reach Self.Checked, else CheckTTL.
	CheckAuto CheckType = "auto"
	// CheckHTTP: the agent sends a GET.
	CheckHTTP CheckType = "http"
	// CheckTCP: the agent connects to the service.
	CheckTCP CheckType = "tcp"
	// CheckGRPC: the agent calls grpc.health.v1.
	CheckGRPC CheckType = "grpc"
	// CheckTTL: the registrar reports to the agent.
	CheckTTL CheckType = "ttl"
	// CheckNone: the service is passing until it is deregistered.
	CheckNone CheckType = "none"
)

// Settings configure a registration. They do not change.
type Settings struct {
	Listener string // "host:port" where the service listens

	Name    string // of the service
	ID      string // default: Name, the machine's name and the listener's port
	Address string // default: the listener's; if unspecified, the node's or the outbound address
	Port    int    // default: the listener's
	Tags    []string
	Meta    map[string]string
	Weight  int // while the check passes; 0: Consul's default, 1
	Check   Check

	// DeregisterAfter is the time with a critical check after which Consul deregisters
	// the service; at least 1 min, or 0: never.
	DeregisterAfter time.Duration
}

// Check configures the check. The keys are for sluice's own.
type Check struct {
	Type CheckType `key:"type" default:"auto" oneof:"auto|http|tcp|ttl|none"`
	Name string    `key:"-"`
	// URL is for CheckHTTP. Default: Path at Self.Checked.
	URL     units.Location `key:"url" format:"http_url"`
	Path    string         `key:"-"` // for CheckHTTP, with query
	Service string         `key:"-"` // for CheckGRPC; "": the whole server
	// TLS is TLS with any certificate, for CheckHTTP without URL and for CheckGRPC.
	TLS bool `key:"-"`
	// Address is for CheckTCP. Default: the service's.
	Address string `key:"address" format:"target"`
	// Interval is the time between checks; with CheckTTL, between reports.
	Interval time.Duration `key:"interval" default:"10s" min:"1s" max:"1h"`
	// Timeout is for CheckHTTP, CheckTCP and CheckGRPC.
	Timeout time.Duration `key:"timeout" default:"2s" min:"100ms" max:"1m"`
}

// Self describes who registers. It does not change.
type Self struct {
	Host    string            // the machine's name, for the default id
	Owner   Owner             // identifies who registers
	Checked string            // "host:port" for CheckHTTP and CheckGRPC; "": it cannot be checked
	Meta    map[string]string // of each registration, besides Settings.Meta
}

// Owner is the entry of the meta that identifies who registers. It is the same over
// restarts. Neither key nor value contains `.
type Owner struct{ Key, Value string }

// ttlFactor is the TTL in report intervals.
const ttlFactor = 3

// checkTypes are all types of checks.
var checkTypes = []CheckType{CheckHTTP, CheckTCP, CheckGRPC, CheckTTL}

// checkID returns the id of a check. Types have different ids: an agent that gets
// another type of check under the same id runs both.
func checkID(id string, t CheckType) string { return "sluice-" + string(t) + ":" + id }

// registration is a service as registered with one agent.
type registration struct {
	*api.AgentServiceRegistration
	check    CheckType // never CheckAuto
	obsolete []string  // ids of the checks of other types
}

// define returns the registration for the agent at agentURL.
func define(s Settings, self Self, agentURL string, outbound func(agentURL string) string) registration {
	local := IsLocal(agentURL)
	host, portText, _ := net.SplitHostPort(s.Listener)
	listenerPort, _ := strconv.Atoi(portText)
	r := &api.AgentServiceRegistration{
		Name:    s.Name,
		ID:      cmp.Or(s.ID, s.Name+"-"+IDPart(self.Host)+"-"+portText),
		Address: s.Address,
		Port:    cmp.Or(s.Port, listenerPort),
		Tags:    slices.Clone(s.Tags),
		Meta:    map[string]string{self.Owner.Key: self.Owner.Value, metaAgent: agentURL},
	}
	if r.Address == "" && !isEvery(host) {
		r.Address = host
	}
	if r.Address == "" && !local {
		r.Address = outbound(agentURL) // a local agent's default, the node's, is this machine
	}
	if s.Weight > 0 {
		r.Weights = &api.AgentWeights{Passing: s.Weight, Warning: 1}
	}
	maps.Copy(r.Meta, self.Meta)
	maps.Copy(r.Meta, s.Meta)

	t := s.Check.Type
	checkedHost, checkedPort, _ := net.SplitHostPort(self.Checked)
	reachable := self.Checked != "" && (local || isEvery(checkedHost) || !IsLoopback(checkedHost))
	switch {
	case t != CheckAuto && t != "":
	case reachable || !s.Check.URL.IsZero():
		t = CheckHTTP
	default:
		t = CheckTTL
	}
	// near is the address of listeners that listen on every address.
	near := cmp.Or(r.Address, "127.0.0.1")
	if isEvery(checkedHost) {
		checkedHost = near
		if local {
			checkedHost = "127.0.0.1"
		}
	}
	checked := net.JoinHostPort(checkedHost, checkedPort)
	c := &api.AgentServiceCheck{
		CheckID: checkID(r.ID, t),
		Name:    s.Check.Name,
		// For a new check; an existing one keeps its status.
		Status: api.HealthPassing,
	}
	if s.DeregisterAfter > 0 {
		c.DeregisterCriticalServiceAfter = s.DeregisterAfter.String()
	}
	switch t {
	case CheckHTTP:
		scheme := "http"
		if s.Check.TLS && s.Check.URL.IsZero() {
			scheme, c.TLSSkipVerify = "https", true
		}
		c.HTTP = cmp.Or(s.Check.URL.Reveal(), scheme+"://"+checked+s.Check.Path)
	case CheckTCP:
		c.TCP = cmp.Or(s.Check.Address, net.JoinHostPort(near, strconv.Itoa(r.Port)))
	case CheckGRPC:
		c.GRPC, c.GRPCUseTLS, c.TLSSkipVerify = checked, s.Check.TLS, s.Check.TLS
		if s.Check.Service != "" {
			c.GRPC += "/" + s.Check.Service
		}
	case CheckTTL:
		c.TTL = (ttlFactor * s.Check.Interval).String()
	}
	if t == CheckHTTP || t == CheckTCP || t == CheckGRPC {
		c.Interval, c.Timeout = s.Check.Interval.String(), s.Check.Timeout.String()
	}
	if t != CheckNone {
		r.Check = c
	}
	// Without a name, Consul uses this id.
	d := registration{AgentServiceRegistration: r, check: t, obsolete: []string{"service:" + r.ID}}
	for _, other := range checkTypes {
		if other != t {
			d.obsolete = append(d.obsolete, checkID(r.ID, other))
		}
	}
	return d
}

// difference returns the part in which an agent's service differs from r, or "".
func (r registration) difference(s *api.AgentService) string {
	switch {
	case s.Service != r.Name:
		return "service"
	case s.Address != r.Address:
		return "address"
	case s.Port != r.Port:
		return "port"
	case !slices.Equal(s.Tags, r.Tags):
		return "tags"
	case !maps.Equal(s.Meta, r.Meta):
		return "meta"
	case r.Weights != nil && s.Weights != *r.Weights:
		return "weight"
	}
	return ""
}

// IDPart makes s safe for an id, which is part of URLs.
func IDPart(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
			return c
		}
		return '-'
	}, s)
}

// IsLocal reports whether the agent's address is on this machine.
func IsLocal(agentURL string) bool {
	u, err := url.Parse(agentURL)
	return err == nil && (u.Scheme == "unix" || IsLoopback(u.Hostname()))
}

// IsLoopback reports whether host, a name or an address, is this machine.
func IsLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || host == "localhost"
}

// isEvery reports whether host is empty or unspecified.
func isEvery(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// Outbound returns the local address of packets to an agent, or "" without a route. It
// sends nothing.
func Outbound(agentURL string) string {
	u, err := url.Parse(agentURL)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	dialer := locality.NewDialer(locality.ByOperator, time.Second)
	conn, err := dialer.Dial("udp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")))
	if err != nil {
		return ""
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP.String()
}
