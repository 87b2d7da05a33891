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

// Registered returns a survey of the replicas that Consul lists as instances of service. c has the token for their admin
// APIs, and how their certificates are verified; nil: neither.
func Registered(self func() Replica, client *consul.Client, service string, c *config.ConsulRegister) Survey {
	list := func(ctx context.Context) ([]discovery.Instance, error) {
		answer, err := consulsource.Health(ctx, client, consulsource.ServiceOptions{Service: service})
		if err == nil && answer.FilteredByACL {
			err = fmt.Errorf("omitted by Consul: some replicas, since the token lacks service:read for %q or node:read for its nodes", service)
		}
		return answer.Instances, err
	}
	token := func() (string, error) {
		if c == nil || c.ReplicaTokenFile == "" {
			return "", nil
		}
		data, err := regular.ReadFile(c.ReplicaTokenFile)
		if err != nil {
			return "", fmt.Errorf("consul.register.replica_token_file: %w", err)
		}
		return strings.TrimSpace(string(data)), nil
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
	return Survey{Self: self, List: list, Token: token, TLS: secure, Control: locality.ByOperator}
}
