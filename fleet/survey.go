package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"sluice/discovery"
	"sluice/registration"
)

const (
	surveyTimeout = 4 * time.Second // for all
	askTimeout    = 2 * time.Second // for one replica
	asksAtATime   = 8
	// maxAnswerBytes is far beyond the answer of a replica with 10,000 services.
	maxAnswerBytes = 16 << 20
)

// Survey asks all replicas. Its fields must be set; it is safe for concurrent
// use.
type Survey struct {
	// Self returns what this replica says of itself.
	Self func() Replica
	// List returns what Consul lists under the name of the registered service.
	List func(ctx context.Context) ([]discovery.Instance, error)
	// Token returns the token for the admin API of the others; "": none is sent.
	Token func() (string, error)
}

// Take asks for the state of every replica, for a few seconds at most. What it
// cannot find out it says in the report.
func (s Survey) Take(ctx context.Context) Report {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	self := s.Self()
	var r Report
	listed, err := s.List(ctx)
	if err != nil {
		r.Error = err.Error()
	}
	for _, i := range listed {
		r.Replicas = append(r.Replicas, listedMember(i, self))
	}
	if !slices.ContainsFunc(r.Replicas, func(m Member) bool { return m.Self }) {
		r.Replicas = append(r.Replicas, Member{Name: self.Replica, Status: "unregistered", Self: true, replica: self.Replica})
	}
	slices.SortFunc(r.Replicas, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Address, b.Address))
	})
	name(r.Replicas)
	s.ask(ctx, r.Replicas, self)
	r.conclude()
	return r
}

// listedMember returns the replica that i is.
func listedMember(i discovery.Instance, self Replica) Member {
	m := Member{
		ID: i.ID, Node: i.Node, Datacenter: i.Datacenter, Address: i.HostPort(),
		Status: i.Status.String(), Detail: i.Detail,
		Host: i.Meta[registration.MetaHost], Version: i.Meta[registration.MetaVersion],
		ConfigHash: i.Meta[registration.MetaConfig],
		Pending:    []string{},
		replica:    i.Meta[registration.MetaReplica],
	}
	m.Self = m.replica == self.Replica
	if t, err := time.Parse(time.RFC3339, i.Meta[registration.MetaStarted]); err == nil {
		m.Started = &t
	}
	if host, port, err := net.SplitHostPort(i.Meta[registration.MetaAdmin]); err == nil {
		m.Admin = net.JoinHostPort(cmp.Or(host, i.Address), port)
	}
	return m
}

// name gives each replica a name, and marks those that are listed twice.
func name(members []Member) {
	ids, replicas := make(map[string]int), make(map[string]int)
	for _, m := range members {
		ids[m.ID]++
	}
	for i := range members {
		m := &members[i]
		if m.Name == "" {
			m.Name = m.ID
			if ids[m.ID] > 1 {
				m.Name += "@" + m.Node
			}
		}
		if m.replica == "" {
			continue
		}
		first, again := replicas[m.replica]
		switch {
		case !again:
			replicas[m.replica] = i
		case members[first].Status == "critical" && m.Status != "critical": // what an agent has left that died
			members[first].Duplicate = true
			replicas[m.replica] = i
		default:
			m.Duplicate = true
		}
	}
}

// ask fills in what the replicas say themselves.
func (s Survey) ask(ctx context.Context, members []Member, self Replica) {
	turns := make(chan struct{}, asksAtATime)
	var asking sync.WaitGroup
	token, tokenErr := s.Token()
	transport := &http.Transport{DisableKeepAlives: true} // and no proxy: the replicas are near
	client := &http.Client{
		Transport: transport,
		Timeout:   askTimeout,
		// A redirect could carry the token anywhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for i := range members {
		m := &members[i]
		switch {
		case m.Duplicate:
			m.Error = "the same replica is listed at another agent"
		case m.Self:
			m.say(self)
		case m.replica == "":
			m.Error = "it is not registered by sluice"
		case m.Admin == "":
			m.Error = "it does not say where its admin API is"
		case isLoopback(m.Admin) && m.Host != self.Host:
			m.Error = "its admin API is only reachable on its own machine"
		case tokenErr != nil:
			m.Error = tokenErr.Error()
		default:
			turns <- struct{}{}
			asking.Go(func() {
				defer func() { <-turns }()
				answer, err := query(ctx, client, m.Admin, token)
				if err == nil && answer.Replica != m.replica {
					err = errors.New("another sluice answers there")
				}
				if err != nil {
					m.Error = fmt.Sprintf("admin API at %s: %v", m.Admin, err)
					return
				}
				m.say(answer)
			})
		}
	}
	asking.Wait()
}

// say puts a replica's own words into m.
func (m *Member) say(r Replica) {
	m.Host, m.Version, m.ConfigHash, m.Ready = r.Host, r.Version, r.ConfigHash, r.Ready
	m.Started = &r.Started
	m.Pending = append([]string{}, r.Pending...)
	m.Services = append([]Service{}, r.Services...)
}

// query asks one replica.
func query(ctx context.Context, client *http.Client, address, token string) (Replica, error) {
	var answer Replica
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/replica", nil)
	if err != nil {
		return answer, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return answer, plain(err)
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusUnauthorized && token == "":
		return answer, errors.New("401 Unauthorized: it wants a token, see consul.register.replica_token_file")
	case response.StatusCode != http.StatusOK:
		return answer, errors.New(response.Status)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswerBytes)).Decode(&answer); err != nil {
		return answer, fmt.Errorf("not an answer of sluice: %w", err)
	}
	return answer, nil
}

// plain shortens the usual reasons for which there is no answer.
func plain(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer in time")
	}
	return err
}

func isLoopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || host == "localhost"
}
