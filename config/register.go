package config

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/config/decoding"
	"sluice/consul/registration"
)

// ConsulRegister configures the registration of sluice in Consul.
type ConsulRegister struct {
	Service string   `key:"service" default:"sluice" format:"consul_service"`
	ID      string   `key:"id" format:"name"`      // empty: service, host name and port
	Address string   `key:"address" format:"host"` // empty: the first listener's
	Port    int      `key:"port" default:"0" min:"0" max:"65535"`
	Tags    []string `key:"tags"`
	Meta    []Meta   `key:"meta" format:"consul_meta"`

	Check registration.Check `key:"check"` // by which Consul finds out whether sluice serves
	// DeregisterCriticalAfter is how long the check may be critical before Consul
	// removes the service. 0: Consul does not remove it.
	DeregisterCriticalAfter time.Duration `key:"deregister_critical_after" default:"1h" min:"0s" max:"8760h"`

	// ReplicaTokenFile contains the secret by which replicas prove to each other who they are. It
	// is never sent. Empty: there is none, and they do not ask each other.
	ReplicaTokenFile string `key:"replica_token_file" format:"file"`
	// ReplicaTLS is for the admin API of the other replicas. With it, replicas without TLS are
	// not asked.
	ReplicaTLS *ReplicaTLS `key:"replica_tls"`
}

// ReplicaTLS is how sluice verifies the certificates of the other replicas' admin APIs.
type ReplicaTLS struct {
	CA         string `key:"ca" format:"file"`          // trusted certificates; empty: the system's
	ServerName string `key:"server_name" format:"host"` // in the certificates; empty: the host of the address
}

// leastDeregisterAfter is the minimum in Consul.
// https://developer.hashicorp.com/consul/api-docs/agent/check#deregistercriticalserviceafter
const leastDeregisterAfter = time.Minute

// check checks rules of consul.register that involve several keys.
func (r *ConsulRegister) check(d *decoder) {
	const key = "consul.register"
	if after := r.DeregisterCriticalAfter; after > 0 && after < leastDeregisterAfter {
		d.Refuse(key+".deregister_critical_after", decoding.FormatDuration(after),
			"want 0s, which is never, or at least "+decoding.FormatDuration(leastDeregisterAfter))
	}
	for _, only := range []struct {
		key, value, types string
	}{
		{"url", r.Check.URL.String(), "auto http"},
		{"address", r.Check.Address, "tcp"},
	} {
		if kind := string(r.Check.Type); only.value != "" && !strings.Contains(only.types, kind) {
			d.Refuse(key+".check."+only.key, only.value,
				"not allowed with type: "+kind+": want type "+strings.ReplaceAll(only.types, " ", " or "))
		}
	}
	if t := r.ReplicaTLS; t != nil {
		checkCA(d, key+".replica_tls.ca", t.CA)
	}
	first := make(map[string]string, len(r.Meta))
	for i, entry := range r.Meta {
		d.RefuseDuplicate(first, entry.Value[0], fmt.Sprintf("%s.meta[%d]", key, i), entry.Text)
	}
	if len(r.Meta) > maxConsulMeta {
		d.Refuse(key+".meta", "", fmt.Sprintf("%d entries: want at most %d", len(r.Meta), maxConsulMeta))
	}
}

// maxConsulMeta is Consul's limit of 64 entries less the ones that sluice adds.
const maxConsulMeta = 48

var (
	isConsulService = upTo(63, `^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$`)
	isConsulMetaKey = upTo(128, `^[A-Za-z0-9_-]+$`)
)

// parseConsulMeta parses KEY=VALUE, if it is allowed in the meta of a service in Consul and the
// key is not reserved for Consul or sluice.
func parseConsulMeta(s string) (meta [2]string, err error) {
	key, value, ok := strings.Cut(s, "=")
	if !ok || !isConsulMetaKey(key) || len(value) > 512 || strings.Contains(value, "\n") ||
		strings.HasPrefix(key, "consul-") || strings.HasPrefix(key, "sluice-") {
		return meta, errors.New("not an entry of a service's meta")
	}
	return [2]string{key, value}, nil
}
