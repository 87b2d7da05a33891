package client

import "context"

// Fake returns clusters of which the one with these options is a fake.
func Fake(o Options, s store) *Clusters {
	all := NewClusters(func(string, error) {})
	all.all[o] = &Cluster{options: o, heartbeatTimeout: heartbeatTimeout, turn: make(chan struct{}, 1), connect: func(context.Context, string) (store, error) { return s, nil }}
	return all
}
