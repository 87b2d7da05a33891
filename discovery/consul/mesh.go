package consul

import "cmp"

// sidecar is the end of the names of the services that Consul registers for connect.sidecar_service.
const sidecar = "-sidecar-proxy"

// identity returns the path of the SPIFFE URI of the instances of o.Service in a data centre.
// https://github.com/hashicorp/consul/blob/v1.22.7/agent/connect/uri_service.go
func (o *ServiceOptions) identity(datacenter string) string {
	partition := ""
	if name := notDefault(o.Partition); name != "" {
		partition = "/ap/" + name
	}
	return partition + "/ns/" + cmp.Or(o.Namespace, "default") + "/dc/" + datacenter + "/svc/" + o.Service
}
