package registration

import (
	"net"
	"strings"
	"time"
)

// Keys of the meta of the registration of a replica of sluice. Package fleet reads them.
const (
	MetaReplica = "sluice-replica" // owner: the machine's name and the address of the admin API
	MetaHost    = "sluice-host"    // the machine's name
	MetaAdmin   = "sluice-admin"   // "[https://]host:port" or "unix:PATH"; no host: the service's
	MetaVersion = "sluice-version" // of the program
	MetaStarted = "sluice-started" // start of the process, RFC 3339
	MetaConfig  = "sluice-config"  // hash of the configuration: in Settings.Meta
)

// Replica describes a process of sluice.
type Replica struct {
	Host    string // the machine's name
	Admin   string // bound address of the admin API: "host:port" or "unix:PATH"
	TLS     bool   // the admin API uses TLS
	Version string
	Started time.Time
}

// Self describes the replica to a registrar. Its owner is the same over restarts and upgrades.
func (r Replica) Self() Self {
	owner := Owner{MetaReplica, strings.ReplaceAll(r.Host, "`", "'") + "/" + r.Admin}
	admin, checked := r.Admin, r.Admin
	if strings.HasPrefix(r.Admin, "unix:") {
		checked = "" // Consul cannot ask it
	} else if host, port, _ := net.SplitHostPort(r.Admin); isEvery(host) {
		admin = ":" + port
	}
	if r.TLS {
		admin = "https://" + admin
	}
	return Self{
		Host: r.Host, Owner: owner, Checked: checked,
		Meta: map[string]string{
			MetaHost:    r.Host,
			MetaAdmin:   admin,
			MetaVersion: r.Version,
			MetaStarted: r.Started.UTC().Format(time.RFC3339),
		},
	}
}
