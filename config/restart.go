package config

import (
	"reflect"
	"strings"
)

// restarts are the keys, with those below them, whose change takes effect at the next
// start, and why.
var restarts = []struct{ key, why string }{
	{"admin.address", "it identifies a replica, in Consul and for other replicas"},
	{"admin.tls", "other replicas and Consul ask by HTTP or HTTPS as it was registered; a change of the files takes effect without a restart"},
	{"admin.orders", "the file is read at the start"},
	{"admin.shares", "the file is read at the start"},
	{"config.history", "the file is read at the start"},
	{"discovery.snapshot", "the file is read at the start"},
	{"discovery.snapshot_max_age", "the file is read at the start"},
	{"consul.addresses", consulClient},
	{"consul.token", consulClient},
	{"consul.token_file", consulClient + "; a change of the file takes effect without a restart"},
	{"consul.tls", consulClient + "; a change of the files takes effect without a restart"},
	{"consul.namespace", consulClient},
	{"consul.partition", consulClient},
	{"consul.max_watches", consulClient},
	{"consul.certificates_dir", "the files are read at the start"},
	{"consul.shares", "the prefix is read at the start"},
	{"consul.orders", "the prefix is read at the start"},
	{"health.max_checks", "the checks of all services share workers"},
}

const consulClient = "one client of Consul, with its connections, serves all watches"

// RestartReason returns why a change of key takes effect at the next start, or "" if it
// takes effect without a restart.
func RestartReason(key string) string {
	for _, r := range restarts {
		if rest, below := strings.CutPrefix(key, r.key); below && (rest == "" || rest[0] == '.') {
			return r.why
		}
	}
	return ""
}

// NeedRestart returns the keys that differ and whose change takes effect at the next
// start, in the order of the file.
func NeedRestart(running, loaded *Config) []string {
	return differences(reflect.ValueOf(*running), reflect.ValueOf(*loaded), "")
}

func differences(a, b reflect.Value, key string) []string {
	if kindIn(a.Type()) != reflect.Struct {
		if RestartReason(key) != "" && !reflect.DeepEqual(a.Interface(), b.Interface()) {
			return []string{key}
		}
		return nil
	}
	var keys []string
	for i := range a.NumField() {
		keys = append(keys, differences(a.Field(i), b.Field(i), join(key, a.Type().Field(i).Tag.Get("key")))...)
	}
	return keys
}
