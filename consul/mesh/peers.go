package mesh

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"sluice/certificates"
)

// peered are the roots of a peered cluster.
type peered struct {
	file string
	*certificates.Follower
}

// Trust sets the files with the roots of peered clusters, by the names of the peerings.
// Consul's HTTP API only has a peer's roots from when the peering began. A file is read again when
// it changes. The error is about files that cannot be read: their clusters have no roots.
func (i *Identity) Trust(files map[string]string) error {
	before := *i.peers.Load()
	peers := make(map[string]peered, len(files))
	var failed error
	for name, file := range files {
		if p, ok := before[name]; ok && p.file == file {
			peers[name] = p
			continue
		}
		follower, err := certificates.Follow(certificates.Files{CA: file}, certificates.LogChanges("used_by", userOf(name), i.options.Log))
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("roots of the peered cluster %q: %w", name, err))
			continue
		}
		peers[name] = peered{file, follower}
	}
	i.peers.Store(&peers)
	return failed
}

// userOf returns who uses the roots of a peered cluster, for statuses and logs.
func userOf(peer string) string { return "mesh peer " + peer }

// Uses returns the uses of certificates: those of the mesh, and the roots of peered clusters.
func (i *Identity) Uses() []certificates.Use {
	uses := []certificates.Use{{User: "mesh", Source: i}}
	peers := *i.peers.Load()
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		uses = append(uses, certificates.Use{User: userOf(name), Source: peers[name].Follower})
	}
	return uses
}

// rootsOf returns the roots of a peered cluster as they are in its file now.
func (i *Identity) rootsOf(peer string) (*roots, error) {
	if p, ok := (*i.peers.Load())[peer]; ok {
		return &roots{pool: p.Read().Trusted}, nil
	}
	return nil, fmt.Errorf("the roots of the peered cluster %q are not known: set consul.connect.peers.%s.ca", peer, peer)
}
