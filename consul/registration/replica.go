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
	MetaAdmin   = "sluice-admin"   // "host:port" of the admin API; no host: that of the service
	MetaVersion = "sluice-version" // of the program
	MetaStarted = "sluice-started" // start of the process, RFC 3339
	MetaConfig  = "sluice-config"  // hash of the configuration's text: in Settings.Meta
)

// Replica describes a process of sluice.
type Replica struct {
	Host    string // the machine's name
	Admin   string // bound "host:port" of the admin API
	Version string
	Started time.Time
}

// Self describes the replica to a registrar. Its owner is the same over restarts and upgrades.
func (r Replica) Self() Self {
	owner := Owner{MetaReplica, strings.ReplaceAll(r.Host, "`", "'") + "/" + r.Admin}
	admin := r.Admin
	if host, port, _ := net.SplitHostPort(r.Admin); isEvery(host) {
		admin = ":" + port
	}
	return Self{
		Host: r.Host, Owner: owner, Checked: r.Admin,
		Meta: map[string]string{
			MetaHost:    r.Host,
			MetaAdmin:   admin,
			MetaVersion: r.Version,
			MetaStarted: r.Started.UTC().Format(time.RFC3339),
		},
	}
}
