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
)

// Keys of the meta of a registration. Package fleet reads them.
const (
	MetaReplica = "sluice-replica" // owner: Self.Replica
	MetaHost    = "sluice-host"    // the machine's name
	MetaAdmin   = "sluice-admin"   // "host:port" of the admin API; no host: that of the service
	MetaVersion = "sluice-version" // of the program
	MetaStarted = "sluice-started" // start of the process, RFC 3339
	MetaConfig  = "sluice-config"  // hash of the configuration's text
	metaAgent   = "sluice-agent"   // URL of the agent
)

// CheckType is the kind of Consul's check of sluice.
type CheckType string

const (
	// CheckAuto: CheckHTTP if the agent can reach the admin API, else CheckTTL.
	CheckAuto CheckType = "auto"
	// CheckHTTP: the agent requests /readyz.
	CheckHTTP CheckType = "http"
	// CheckTCP: the agent connects to the first listener.
	CheckTCP CheckType = "tcp"
	// CheckTTL: sluice reports to the agent.
	CheckTTL CheckType = "ttl"
	// CheckNone: the service is passing until it is deregistered.
	CheckNone CheckType = "none"
)

// Settings configure a registration. They do not change.
type Settings struct {
	Listener string // "host:port" where the first listener is bound

	Name    string // of the service
	ID      string // default: Name, the machine's name and the port of the first listener
	Address string // default: the first listener's; if that is unspecified, the node's or the outbound address
	Port    int    // default: the first listener's
	Tags    []string
	Meta    map[string]string
	Check   Check

	// DeregisterAfter is the time with a critical check after which Consul deregisters
	// the service; at least 1 min, or 0: never.
	DeregisterAfter time.Duration

	ConfigHash string // of the configuration in use
}

// Check configures the check.
type Check struct {
	Type     CheckType
	URL      string        // for CheckHTTP; default: the admin API's /readyz
	Address  string        // "host:port", for CheckTCP; default: the service's
	Interval time.Duration // between checks; with CheckTTL, between reports
	Timeout  time.Duration // for CheckHTTP and CheckTCP
}

// Self describes this process.
type Self struct {
	Host    string // the machine's name
	Admin   string // bound "host:port" of the admin API
	Version string
	Started time.Time
}

// Replica identifies this replica. It is the same over restarts and upgrades: the
// machine's name and the address of the admin API.
func (s Self) Replica() string { return strings.ReplaceAll(s.Host, "`", "'") + "/" + s.Admin }

// ttlFactor is the TTL in report intervals.
const ttlFactor = 3

// checkTypes are all types of checks.
var checkTypes = []CheckType{CheckHTTP, CheckTCP, CheckTTL}

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
	local := isLocal(agentURL)
	host, portText, _ := net.SplitHostPort(s.Listener)
	listenerPort, _ := strconv.Atoi(portText)
	r := &api.AgentServiceRegistration{
		Name:    s.Name,
		ID:      s.ID,
		Address: s.Address,
		Port:    cmp.Or(s.Port, listenerPort),
		Tags:    slices.Clone(s.Tags),
		Meta: map[string]string{
			MetaReplica: self.Replica(),
			MetaHost:    self.Host,
			MetaAdmin:   self.Admin,
			MetaVersion: self.Version,
			MetaStarted: self.Started.UTC().Format(time.RFC3339),
			MetaConfig:  s.ConfigHash,
			metaAgent:   agentURL,
		},
	}
	if r.ID == "" {
		r.ID = s.Name + "-" + idPart(self.Host) + "-" + portText
	}
	if r.Address == "" && !isEvery(host) {
		r.Address = host
	}
	if r.Address == "" && !local {
		r.Address = outbound(agentURL) // a local agent's default, the node's, is this machine
	}
	adminHost, adminPort, _ := net.SplitHostPort(self.Admin)
	if isEvery(adminHost) {
		r.Meta[MetaAdmin] = ":" + adminPort
	}
	maps.Copy(r.Meta, s.Meta)

	t := s.Check.Type
	reachable := local || isEvery(adminHost) || !IsLoopback(adminHost)
	switch {
	case t != CheckAuto && t != "":
	case reachable || s.Check.URL != "":
		t = CheckHTTP
	default:
		t = CheckTTL
	}
	// near is the address of listeners that listen on every address.
	near := cmp.Or(r.Address, "127.0.0.1")
	c := &api.AgentServiceCheck{
		CheckID: checkID(r.ID, t),
		Name:    "sluice serves",
		// For a new check; an existing one keeps its status.
		Status: api.HealthPassing,
	}
	if s.DeregisterAfter > 0 {
		c.DeregisterCriticalServiceAfter = s.DeregisterAfter.String()
	}
	switch t {
	case CheckHTTP:
		if isEvery(adminHost) {
			adminHost = near
			if local {
				adminHost = "127.0.0.1"
			}
		}
		c.HTTP = cmp.Or(s.Check.URL, "http://"+net.JoinHostPort(adminHost, adminPort)+"/readyz")
	case CheckTCP:
		c.TCP = cmp.Or(s.Check.Address, net.JoinHostPort(near, strconv.Itoa(r.Port)))
	case CheckTTL:
		c.TTL = (ttlFactor * s.Check.Interval).String()
	}
	if t == CheckHTTP || t == CheckTCP {
		c.Interval, c.Timeout = s.Check.Interval.String(), s.Check.Timeout.String()
	}
	if t != CheckNone {
		r.Check = c
	}
	d := registration{AgentServiceRegistration: r, check: t}
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
	}
	return ""
}

// idPart makes s safe for an id, which is part of URLs.
func idPart(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
			return c
		}
		return '-'
	}, s)
}

// isLocal reports whether the agent's address is on this machine.
func isLocal(agentURL string) bool {
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
	conn, err := net.DialTimeout("udp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")), time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP.String()
}
