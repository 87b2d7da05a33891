package roll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/consul"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
)

// lockTimeout is how long a roll waits for the lock: longer than the delay after another roll.
const lockTimeout = 3 * time.Second

// Record is the roll of a service as Consul's KV store has it, from its begin until all instances
// are done.
type Record struct {
	Command []string  `json:"command"`
	By      string    `json:"by"`
	Begun   time.Time `json:"begun"`
	Stopped string    `json:"stopped,omitempty"` // why it stopped; "": it runs, or has died
	Progress
}

// Store keeps the record of a service's roll, and its lock, in Consul's KV store.
type Store struct {
	Consul *consul.Client
	Prefix string // of the keys
}

func (s Store) key(service, name string) string { return s.Prefix + "/" + service + "/" + name }

// Lock gets the lock of a service's roll. Without it, the error tells who has it.
func (s Store) Lock(ctx context.Context, service string) (*consul.Lock, error) {
	limited, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	lock, err := s.Consul.Lock(limited, s.key(service, "lock"))
	if err == nil || !errors.Is(err, context.DeadlineExceeded) {
		return lock, err
	}
	record, readErr := s.Read(ctx, service)
	if readErr != nil || record == nil {
		return nil, fmt.Errorf("another roll of %s has the lock, or Consul does not answer: %w", service, err)
	}
	return nil, fmt.Errorf("another roll of %s runs, by %s since %s", service, record.By, record.Begun.Format(time.RFC3339))
}

// Read returns the record of a service; nil: there is none.
func (s Store) Read(ctx context.Context, service string) (*Record, error) {
	pair, _, err := s.Consul.KV().Get(ctx, s.key(service, "progress"), 0, 0)
	if err != nil || pair == nil {
		return nil, err
	}
	record := new(Record)
	if err := json.Unmarshal(pair.Value, record); err != nil {
		return nil, fmt.Errorf("the key %s: %w", pair.Key, err)
	}
	return record, nil
}

// Write writes the record of a service.
func (s Store) Write(ctx context.Context, service string, r Record) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.Consul.KV().Put(ctx, &api.KVPair{Key: s.key(service, "progress"), Value: value})
}

// Forget deletes the record of a service.
func (s Store) Forget(ctx context.Context, service string) error {
	return s.Consul.KV().Delete(ctx, s.key(service, "progress"))
}

// CheckTime returns how long the checks of an instance may take to notice a failure: an interval
// and a timeout. It asks for the service that the drain of the instance names, which is Consul's
// name for it.
func CheckTime(ctx context.Context, c *consul.Client, service string, p admin.Peer) (longest time.Duration, err error) {
	query := consul.Query{Path: "health/checks/" + discovery.PathSegment(service), Needs: fmt.Sprintf("service:read: service %q { policy = \"read\" }", service)}
	query.Datacenter = p.Datacenter
	var checks []struct{ Node, ServiceID, Interval, Timeout string }
	_, err = c.Get(ctx, query, func(body io.Reader) error {
		checks = nil // of an answer that was cut
		return json.NewDecoder(body).Decode(&checks)
	})
	for _, check := range checks {
		if check.Node == p.Node && check.ServiceID == p.ID {
			longest = max(longest, consulsource.CheckTime(check.Interval, check.Timeout))
		}
	}
	return longest, err
}

// Continue returns the progress with which a roll of the command begins, given the record of an
// earlier one. resume and restart are what the operator wants.
func Continue(record *Record, command []string, resume, restart bool) (Progress, error) {
	switch {
	case record == nil && resume:
		return Progress{}, errors.New("no roll of the service was interrupted: nothing to resume")
	case record == nil:
		return Progress{}, nil
	case restart:
		return Progress{Present: record.Present}, nil
	case !resume:
		return Progress{}, fmt.Errorf("a roll by %s has stopped after %d instances: --resume goes on, --restart begins anew", record.By, len(record.Done))
	case !slices.Equal(record.Command, command):
		return Progress{}, fmt.Errorf("the roll that has stopped had another command, %q: --restart begins anew", record.Command)
	}
	return record.Progress, nil
}
