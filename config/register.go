package config

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"sluice/registration"
)

// ConsulRegister is how sluice registers itself in Consul.
type ConsulRegister struct {
	Service string   `key:"service" default:"sluice" format:"consul_service"`
	ID      string   `key:"id" format:"name"`      // empty: service, host name and port
	Address string   `key:"address" format:"host"` // empty: the first listener's
	Port    int      `key:"port" default:"0" min:"0" max:"65535"`
	Tags    []string `key:"tags"`
	Meta    []string `key:"meta" format:"consul_meta"`

	Check ConsulCheck `key:"check"`
	// DeregisterCriticalAfter is how long the check may be critical until Consul
	// takes the service away; 0: never.
	DeregisterCriticalAfter time.Duration `key:"deregister_critical_after" default:"1h" min:"0s" max:"8760h"`

	// ReplicaTokenFile holds the bearer token that goes to the admin API of the
	// other replicas. Empty: none does.
	ReplicaTokenFile string `key:"replica_token_file" format:"file"`
}

// ConsulCheck is how Consul learns whether this sluice serves.
type ConsulCheck struct {
	Type     string        `key:"type" default:"auto" oneof:"auto|http|tcp|ttl|none"`
	URL      Location      `key:"url" format:"http_url"`   // http; empty: /readyz of the admin API
	Address  string        `key:"address" format:"target"` // tcp; empty: the service's
	Interval time.Duration `key:"interval" default:"10s" min:"1s" max:"1h"`
	Timeout  time.Duration `key:"timeout" default:"2s" min:"100ms" max:"1m"`
}

// leastDeregisterAfter is the least time that Consul takes.
// https://developer.hashicorp.com/consul/api-docs/agent/check#deregistercriticalserviceafter
const leastDeregisterAfter = time.Minute

// register checks what one key of consul.register alone does not show.
func (d *decoder) register(r *ConsulRegister) {
	const key = "consul.register"
	if after := r.DeregisterCriticalAfter; after > 0 && after < leastDeregisterAfter {
		d.fail(d.place(key+".deregister_critical_after"), key+".deregister_critical_after", formatDuration(after),
			"want 0s, which is never, or at least "+formatDuration(leastDeregisterAfter))
	}
	for _, only := range []struct {
		key, value, types string
	}{
		{"url", r.Check.URL.String(), "auto http"},
		{"address", r.Check.Address, "tcp"},
	} {
		if only.value != "" && !strings.Contains(only.types, r.Check.Type) {
			d.fail(d.place(key+".check."+only.key), key+".check."+only.key, only.value,
				"not allowed with type: "+r.Check.Type+": it is for "+strings.ReplaceAll(only.types, " ", " and "))
		}
	}
	first := make(map[string]string, len(r.Meta))
	for i, entry := range r.Meta {
		name, _, _ := strings.Cut(entry, "=")
		d.once(first, name, fmt.Sprintf("%s.meta[%d]", key, i), entry)
	}
	if len(r.Meta) > maxConsulMeta {
		d.fail(d.place(key+".meta"), key+".meta", "", fmt.Sprintf("%d entries: want at most %d", len(r.Meta), maxConsulMeta))
	}
}

// maxConsulMeta is what is left of Consul's 64 entries beside sluice's own.
const maxConsulMeta = 48

var (
	consulServiceName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	consulMetaEntry   = regexp.MustCompile(`^([A-Za-z0-9_-]{1,128})=(.{0,512})$`)
)

// isConsulMeta reports whether s is KEY=VALUE as Consul takes it in a service's
// meta, without a key that Consul or sluice has for itself.
func isConsulMeta(s string) bool {
	m := consulMetaEntry.FindStringSubmatch(s)
	return m != nil && len(m[2]) <= 512 && !strings.HasPrefix(m[1], "consul-") && !strings.HasPrefix(m[1], registration.MetaPrefix)
}
