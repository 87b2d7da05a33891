package mesh

import (
	"cmp"
	"strings"

	"sluice/discovery"
)

// defaultName is the name of the default namespace and of the default partition.
const defaultName = "default"

// A Destination is a service in the mesh, as intentions name it: intentions hold in all data
// centres. An empty namespace or partition is the default one.
type Destination struct {
	Partition string `json:"partition,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Service   string `json:"service"`
}

// String returns the destination as Consul's command line does, such as "partition/namespace/web".
func (d Destination) String() string {
	switch {
	case d.Partition != "":
		return d.Partition + "/" + cmp.Or(d.Namespace, defaultName) + "/" + d.Service
	case d.Namespace != "":
		return d.Namespace + "/" + d.Service
	}
	return d.Service
}

// normal returns d with empty default names.
func (d Destination) normal() Destination {
	return Destination{unlessDefault(d.Partition), unlessDefault(d.Namespace), d.Service}
}

func unlessDefault(name string) string {
	if name == defaultName {
		return ""
	}
	return name
}

// DestinationOf returns the service of an instance, from [discovery.Instance.Identity].
// ok is false outside of the mesh, and in a peered cluster, which has its own intentions.
//
// https://developer.hashicorp.com/consul/docs/connect/ca#spiffe-id, and
// agent/connect/uri_service.go in Consul's source.
func DestinationOf(i discovery.Instance) (d Destination, ok bool) {
	if i.Identity == "" || i.Peer != "" {
		return d, false
	}
	parts := strings.Split(strings.TrimPrefix(i.Identity, "/"), "/")
	for len(parts) >= 2 {
		switch parts[0] {
		case "ap":
			d.Partition = parts[1]
		case "ns":
			d.Namespace = parts[1]
		case "svc":
			d.Service = parts[1]
		}
		parts = parts[2:]
	}
	return d.normal(), d.Service != ""
}
