package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/discovery"
)

// Replica is the body of /api/replica.
type Replica struct {
	Replica    string    `json:"replica"` // its registration's MetaReplica
	Host       string    `json:"host"`
	Version    string    `json:"version"`
	Started    time.Time `json:"started"`
	ConfigHash string    `json:"config_hash"` // of the configuration in use, but for what belongs to one replica
	Pending    []string  `json:"pending"`     // keys that wait for a restart
	Ready      bool      `json:"ready"`
	Orders     string    `json:"orders,omitempty"` // digest of operators' orders; empty: it does not share them
	Services   []Service `json:"services"`         // sorted by name
}

// Service is the state of a service in a replica.
type Service struct {
	Service   string `json:"service"` // sluice's name for it
	Source    string `json:"source"`  // indexes of different sources are not comparable
	State     string `json:"state"`   // of its watch: pending, fresh, stale
	Index     uint64 `json:"index"`   // of the last answer; 0: none
	Instances int    `json:"instances"`
	Digest    string `json:"digest"` // of the instances
}

// Digest returns a hash of the instances, independent of their order and of the output
// of checks.
func Digest(set []discovery.Instance) string {
	lines := make([]string, len(set))
	for n, i := range set {
		var b strings.Builder
		text := func(s string) {
			var length [4]byte
			binary.BigEndian.PutUint32(length[:], uint32(len(s)))
			b.Write(length[:])
			b.WriteString(s)
		}
		number := func(n int) {
			var octets [8]byte
			binary.BigEndian.PutUint64(octets[:], uint64(n))
			b.Write(octets[:])
		}
		for _, s := range []string{i.Service, i.ID, i.Node, i.Datacenter, i.Address, i.Status.String()} {
			text(s)
		}
		number(i.Port)
		number(i.Weight)
		number(len(i.Tags))
		for _, tag := range i.Tags {
			text(tag)
		}
		for _, key := range slices.Sorted(maps.Keys(i.Meta)) {
			text(key)
			text(i.Meta[key])
		}
		lines[n] = b.String()
	}
	slices.Sort(lines)
	hash := sha256.New()
	for _, line := range lines {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(line)))
		hash.Write(length[:])
		hash.Write([]byte(line))
	}
	return hex.EncodeToString(hash.Sum(nil)[:6])
}
