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
	MetaReplica = "sluice-replica" // who made it: the same over restarts and upgrades
	MetaHost    = "sluice-host"    // the machine's name
	MetaAdmin   = "sluice-admin"   // "host:port" of the admin API; no host: that of the service
	MetaVersion = "sluice-version" // of the program
	MetaStarted = "sluice-started" // when the process began, RFC 3339
	MetaConfig  = "sluice-config"  // hash of the configuration's text
	metaAgent   = "sluice-agent"   // the agent's address as sluice has it
)

// MetaPrefix is what all these keys begin with.
const MetaPrefix = "sluice-"

// CheckType is how Consul learns whether this sluice serves.
type CheckType string

const (
	// CheckAuto: CheckHTTP where the agent can reach the admin API, else CheckTTL.
	CheckAuto CheckType = "auto"
	// CheckHTTP: the agent asks for /readyz.
	CheckHTTP CheckType = "http"
	// CheckTCP: the agent connects to the first listener.
	CheckTCP CheckType = "tcp"
	// CheckTTL: sluice tells the agent.
	CheckTTL CheckType = "ttl"
	// CheckNone: Consul lists the service as passing until it is deregistered.
	CheckNone CheckType = "none"
)

// Settings are what an operator decides. They are a value that nobody changes.
type Settings struct {
	Name    string // of the service
	ID      string // default: Name, the machine's name and the port of the first listener
	Address string // default: the first listener's or, if that is every address, one that reaches this machine
	Port    int    // default: the first listener's
	Tags    []string
	Meta    map[string]string
	Check   Check

	// DeregisterAfter is how long the check may be critical until Consul takes the
	// service away; at least 1 min, or 0: never.
	DeregisterAfter time.Duration

	ConfigHash string // of the configuration in use
}

// Check is how Consul checks.
type Check struct {
	Type     CheckType
	URL      string        // for CheckHTTP; default: the admin API's /readyz
	Address  string        // "host:port", for CheckTCP; default: the service's
	Interval time.Duration // between checks; with CheckTTL, between reports
	Timeout  time.Duration // for CheckHTTP and CheckTCP
}

// Self is what is true of this process, whatever the settings are.
type Self struct {
	Host     string // the machine's name
	Listener string // "host:port" where the first listener is bound
	Admin    string // "host:port" where the admin API is bound
	Version  string
	Started  time.Time
}

// Replica identifies this sluice among all, also its predecessors and successors
// on this machine: there cannot be two with the same address of the admin API.
func (s Self) Replica() string { return strings.ReplaceAll(s.Host, "`", "'") + "/" + s.Admin }

// ttlFactor is how many reports of a TTL check may be missing.
const ttlFactor = 3

// checkTypes are all types of checks that a registration may have had.
var checkTypes = []CheckType{CheckHTTP, CheckTCP, CheckTTL}

// checkID returns the id of a check. Each type has its own: an agent that gets a
// check of another type under the same id runs both.
func checkID(id string, t CheckType) string { return "sluice-" + string(t) + ":" + id }

// registration is a service as one agent gets it.
type registration struct {
	*api.AgentServiceRegistration
	check    CheckType // never CheckAuto
	obsolete []string  // ids of the checks of other types
}

// define returns what the agent at agentURL is to have. Outbound returns the
// address of this machine that packets to an agent come from, or "".
func define(s Settings, self Self, agentURL string, outbound func(agentURL string) string) registration {
	local := isLocal(agentURL)
	host, portText, _ := net.SplitHostPort(self.Listener)
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
		r.Address = outbound(agentURL) // else the node's, which is this machine
	}
	adminHost, adminPort, _ := net.SplitHostPort(self.Admin)
	if isEvery(adminHost) {
		r.Meta[MetaAdmin] = ":" + adminPort
	}
	maps.Copy(r.Meta, s.Meta)

	t := s.Check.Type
	reachable := local || isEvery(adminHost) || !isLoopback(adminHost)
	switch {
	case t != CheckAuto && t != "":
	case reachable || s.Check.URL != "":
		t = CheckHTTP
	default:
		t = CheckTTL
	}
	// near is where the agent finds what listens on every address.
	near := cmp.Or(r.Address, "127.0.0.1")
	c := &api.AgentServiceCheck{
		CheckID: checkID(r.ID, t),
		Name:    "sluice serves",
		// It does when it registers; a check that has run already keeps its status.
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

// difference says in what an agent's service is not as r; "" if it is.
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

// idPart makes a text fit for an id, which is part of URLs.
func idPart(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
			return c
		}
		return '-'
	}, s)
}

// isLocal reports whether an agent runs on this machine, by its address.
func isLocal(agentURL string) bool {
	u, err := url.Parse(agentURL)
	return err == nil && (u.Scheme == "unix" || isLoopback(u.Hostname()))
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || host == "localhost"
}

// isEvery reports whether a listener's host means every address.
func isEvery(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// Outbound returns the address of this machine that packets to an agent come
// from, or "" if there is no way to it. It sends nothing.
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
