package fleet

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"

	"sluice/certificates"
	"sluice/config"
	"sluice/config/regular"
	"sluice/consul"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/discovery/locality"
)

// Secret returns the secret of all replicas; "": there is none.
func Secret(c *config.ConsulRegister) (string, error) {
	if c == nil || c.ReplicaTokenFile == "" {
		return "", nil
	}
	data, err := regular.ReadFile(c.ReplicaTokenFile)
	if err != nil {
		return "", fmt.Errorf("consul.register.replica_token_file: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// Registered returns a survey of the replicas that Consul lists as instances of service. c has
// their secret, and how the certificates of their admin APIs are verified; nil: neither. control is
// of who names the addresses.
func Registered(self func() Replica, client *consul.Client, service string, c *config.ConsulRegister, control locality.Control) Survey {
	list := func(ctx context.Context) ([]discovery.Instance, error) {
		answer, err := consulsource.Health(ctx, client, consulsource.ServiceOptions{Service: service})
		if err == nil && answer.FilteredByACL {
			err = fmt.Errorf("omitted by Consul: some replicas, since the token lacks service:read for %q or node:read for its nodes", service)
		}
		return answer.Instances, err
	}
	secure := func() (*tls.Config, error) {
		if c == nil || c.ReplicaTLS == nil {
			return nil, nil
		}
		client, err := certificates.NewClient(certificates.ClientOptions{
			ClientTLS: certificates.ClientTLS{CA: c.ReplicaTLS.CA, ServerName: c.ReplicaTLS.ServerName},
		})
		if err != nil {
			return nil, fmt.Errorf("consul.register.replica_tls: %w", err)
		}
		return client.Config(), nil
	}
	return Survey{Self: self, List: list, Secret: func() (string, error) { return Secret(c) }, TLS: secure, Control: control}
}
