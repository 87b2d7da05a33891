package consul

import (
	"cmp"
	"context"
	"time"

	"sluice/consul"
	"sluice/discovery"
)

// testClient is a client and the sources that share it.
type testClient struct {
	*consul.Client
	*Sources
}

func newClient(o consul.Options) (*testClient, error) {
	client, err := consul.New(o)
	if err != nil {
		return nil, err
	}
	return &testClient{client, NewSources(client, o.Log)}, nil
}

func (c *testClient) Stats() Stats { return c.Sources.Stats() }

func (c *testClient) Health(ctx context.Context, o ServiceOptions) (Answer, error) {
	o.MinHealthy = cmp.Or(o.MinHealthy, 1)
	return Health(ctx, c.Client, o)
}

// Source is Sources.Source with defaults. A negative time means none.
func (c *testClient) Source(o ServiceOptions) discovery.Source {
	o.Wait, o.Poll, o.MinHealthy = cmp.Or(o.Wait, defaultWait), cmp.Or(o.Poll, 5*time.Second), cmp.Or(o.MinHealthy, 1)
	o.Probation = max(cmp.Or(o.Probation, 10*time.Minute), 0)
	return c.Sources.Source(o)
}

// Catalog is Sources.Catalog with defaults.
func (c *testClient) Catalog(s Selection, known ...CatalogService) *Catalog {
	s.Wait, s.Probation = cmp.Or(s.Wait, defaultWait), max(cmp.Or(s.Probation, 10*time.Minute), 0)
	return c.Sources.Catalog(s, known...)
}

const (
	defaultWait = time.Minute
	maxWait     = 10 * time.Minute // Consul's limit
)
