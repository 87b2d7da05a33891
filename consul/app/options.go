package app

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
)

// Options configure a registration.
type Options struct {
	Name string // of the service
	Port int    // that the application listens on, from 1 to 65535

	// Address is the host name or IP address for clients, without a port. Default: with an
	// agent on this machine the address that it advertises, else the local address of the
	// connection to the agent.
	Address string
	ID      string            // default: Name, Address or else the machine's name, and Port
	Tags    []string          // each on one line
	Meta    map[string]string // no key begins with "consul-" or "sluice-"
	Weight  int               // from 1 to 65535; default 1
	Check   Check

	// DeregisterAfter is how long the check may be critical before Consul deregisters the
	// application, at least a minute. Default DefaultDeregisterAfter; negative: never.
	DeregisterAfter time.Duration
	// StartTimeout is how long Run waits until the check passes; 0: for ever.
	StartTimeout time.Duration
	// Drain is how long Run waits after the deregistration, so that load balancers notice.
	Drain time.Duration

	// Consul configures the client. The zero value means the configuration of Consul's own tools:
	// CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN and the other variables.
	Consul consul.Options
	Log    zerolog.Logger
}

// CheckType is the kind of a check.
type CheckType string

const (
	// TCP: the application accepts connections.
	TCP CheckType = "tcp"
	// HTTP: it answers a GET with a status from 200 to 299.
	HTTP CheckType = "http"
	// GRPC: it answers grpc.health.v1 with SERVING.
	GRPC CheckType = "grpc"
	// None: the process lives.
	None CheckType = "none"
)

// Check is how Consul finds out whether the application works.
type Check struct {
	Type    CheckType // default TCP; with TTL, None
	Path    string    // of HTTP, with query; default "/"
	Service string    // of GRPC; "": the whole server
	TLS     bool      // HTTP and GRPC use TLS, with any certificate

	// TTL: the process that calls Run checks the application, and reports to the agent. Else
	// the agent checks, which must reach the application. None is always with TTL.
	TTL bool

	Interval time.Duration // from 1 s to 1 h; default DefaultInterval, TTL DefaultReportInterval
	Timeout  time.Duration // of a check, from 100 ms to 1 min; default DefaultTimeout
}

// Defaults.
const (
	DefaultDeregisterAfter = 10 * time.Minute
	DefaultInterval        = 2 * time.Second
	DefaultReportInterval  = 10 * time.Second
	DefaultTimeout         = 2 * time.Second
)

// Limits of Consul, except for the meta, where sluice adds entries.
const (
	leastDeregisterAfter = time.Minute
	mostWeight           = 65535
	mostMeta             = 48
	longestMetaValue     = 512
	longestName          = 128 // also of a key of the meta
)

var (
	name    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	metaKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
)

// fits reports whether a text matches and is not too long. Patterns that count are large.
func fits(re *regexp.Regexp, text string) bool {
	return len(text) <= longestName && re.MatchString(text)
}

const wantName = "want up to 128 letters, digits, '.', '_' or '-', of which the first is a letter or a digit"

// withDefaults returns o with defaults in place of empty fields.
func (o Options) withDefaults() Options {
	c := &o.Check
	if c.Type == "" && !c.TTL {
		c.Type = TCP
	}
	c.Type = cmp.Or(c.Type, None)
	c.TTL = c.TTL || c.Type == None
	c.Path = cmp.Or(c.Path, "/")
	if c.TTL {
		c.Interval = cmp.Or(c.Interval, DefaultReportInterval)
	}
	c.Interval, c.Timeout = cmp.Or(c.Interval, DefaultInterval), cmp.Or(c.Timeout, DefaultTimeout)
	o.Weight = cmp.Or(o.Weight, 1)
	o.DeregisterAfter = max(cmp.Or(o.DeregisterAfter, DefaultDeregisterAfter), 0)
	return o
}

// check returns everything that is wrong with o, which has its defaults.
func (o Options) check() error {
	var wrong []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	refuse(!fits(name, o.Name), "name %q: %s", o.Name, wantName)
	refuse(o.ID != "" && !fits(name, o.ID), "id %q: %s", o.ID, wantName)
	refuse(o.Port < 1 || o.Port > 65535, "port %d: want a number from 1 to 65535", o.Port)
	refuse(o.Address != "" && !discovery.IsHost(o.Address), "address %q: want a host name or an IP address, without a port", o.Address)
	refuse(o.Weight < 1 || o.Weight > mostWeight, "weight %d: want a number from 1 to %d", o.Weight, mostWeight)
	refuse(o.DeregisterAfter > 0 && o.DeregisterAfter < leastDeregisterAfter,
		"deregister after %v: want at least %v, as Consul does", o.DeregisterAfter, leastDeregisterAfter)
	refuse(o.StartTimeout < 0, "start timeout %v: want 0, which is for ever, or more", o.StartTimeout)
	refuse(o.Drain < 0, "drain %v: want 0 or more", o.Drain)
	for _, tag := range o.Tags {
		refuse(tag == "" || strings.ContainsAny(tag, "\r\n"), "tag %q: want a text on one line", tag)
	}
	refuse(len(o.Meta) > mostMeta, "meta: %d entries: want at most %d", len(o.Meta), mostMeta)
	for _, key := range slices.Sorted(maps.Keys(o.Meta)) {
		refuse(!fits(metaKey, key) || strings.HasPrefix(key, "consul-") || strings.HasPrefix(key, "sluice-"),
			`meta %q: want a key of up to 128 letters, digits, '_' and '-', which does not begin with "consul-" or "sluice-"`, key)
		refuse(len(o.Meta[key]) > longestMetaValue, "meta %q: a value of %d bytes: want at most %d", key, len(o.Meta[key]), longestMetaValue)
	}
	c := o.Check
	refuse(!slices.Contains([]CheckType{TCP, HTTP, GRPC, None}, c.Type), "check %q: want tcp, http, grpc or none", c.Type)
	refuse(!strings.HasPrefix(c.Path, "/") || strings.ContainsFunc(c.Path, func(r rune) bool { return r <= ' ' || r == 0x7f }),
		"path %q of the check: want a path that begins with /, without blanks", c.Path)
	refuse(c.TLS && c.Type != HTTP && c.Type != GRPC, "TLS is for checks of type http and grpc")
	refuse(c.Interval < time.Second || c.Interval > time.Hour, "check interval %v: want 1s to 1h", c.Interval)
	refuse(c.Timeout < 100*time.Millisecond || c.Timeout > time.Minute, "check timeout %v: want 100ms to 1m", c.Timeout)
	refuse(c.TTL && c.Type != None && c.Timeout > c.Interval, "check timeout %v: with TTL, want at most the interval, %v", c.Timeout, c.Interval)
	return errors.Join(wrong...)
}
