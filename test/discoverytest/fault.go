package discoverytest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// Fault is a way to fail. Its fields combine; a fault is answered at once, even
// to a query that would block, unless Hang or Pause is set.
type Fault struct {
	// Only limits the fault to the queries that it accepts; nil means all of
	// them, and the question who the leader is. It may sleep, to delay the answer.
	Only func(Request) bool

	Drop     bool   // close the connection without an answer
	Hang     bool   // give no answer until the client goes away
	Pause    bool   // give no answer until the fault ends or the client goes away
	Status   int    // answer with this status and Body
	Body     string // answer with this in place of the instances
	Empty    bool   // list no instance
	Index    string // send this X-Consul-Index; "-": send none
	NoLeader bool   // send X-Consul-KnownLeader: false
	Filtered bool   // send X-Consul-Results-Filtered-By-ACLs: true, unless it streams
	Deny     bool   // send X-Consul-Default-ACL-Policy: deny
	Age      string // send this Age, and X-Cache: HIT

	// Leaderless answers 500 to all but streaming queries, which go on: the agent's
	// materialized view does not know that there is no leader.
	Leaderless bool
}

// ServeHTTP answers the queries for the health of a service, those for the names
// of services, nodes and checks, and who the leader is.
func (c *Consul) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == leaderPath {
		c.leader(w, r)
		return
	}
	if catalogPath(r.URL.Path) {
		c.catalog(w, r)
		return
	}
	if r.URL.Path == datacentersPath || r.URL.Path == coordinatesPath {
		c.datacenters(w, r)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, healthPath)
	connect := strings.HasPrefix(r.URL.Path, connectPath)
	if connect {
		name, ok = strings.CutPrefix(r.URL.Path, connectPath)
	}
	if query, execute := strings.CutPrefix(r.URL.Path, queryPath); execute {
		name, ok = strings.CutSuffix(query, "/execute")
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	request := parse(name, r)
	c.mu.Lock()
	c.requests = append(c.requests, request)
	c.mu.Unlock()
	c.block(r, request, func() reply {
		s := c.findLocked(name)
		if there, ok := c.services[request.Datacenter+"/"+name]; ok {
			s = there
		}
		if connect {
			s = c.inMeshLocked(name)
		}
		s.index = max(s.index, 1)
		streaming := (request.Index > 0 || request.Cached) && request.Near == "" && !c.plain
		return reply{index: s.index, streaming: streaming, send: func(f *Fault) {
			f.answer(w, r, s, streaming && !f.NoLeader)
		}}
	})
}

// answer answers as the fault wants; the zero Fault answers well. A streaming
// answer, as Consul gives it from the agent's materialized view to a query with
// an index, tells nothing of leaders and ACLs.
func (f *Fault) answer(w http.ResponseWriter, r *http.Request, s service, streaming bool) {
	query := r.URL.Query()
	entries := wanted(s.entries, query["tag"], query.Get("filter"))
	if f.Empty {
		entries = []*api.ServiceEntry{}
	}
	if strings.HasPrefix(r.URL.Path, queryPath) {
		f.answerWith(w, r, s.index, prepared(entries, s.ttl), false)
		return
	}
	f.answerWith(w, r, s.index, entries, streaming)
}

func (f *Fault) answerWith(w http.ResponseWriter, r *http.Request, at uint64, body any, streaming bool) {
	switch {
	case f.Drop:
		panic(http.ErrAbortHandler)
	case f.Hang:
		<-r.Context().Done()
		return
	case f.Status != 0 && f.Status != http.StatusOK:
		http.Error(w, f.Body, f.Status)
		return
	case f.Leaderless:
		http.Error(w, "No cluster leader", http.StatusInternalServerError)
		return
	}
	index := strconv.FormatUint(at, 10)
	if f.Index != "" {
		index = f.Index
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	if index != "-" {
		header.Set("X-Consul-Index", index)
	}
	header.Set("X-Consul-LastContact", "0")
	header.Set("X-Consul-KnownLeader", strconv.FormatBool(!f.NoLeader && !streaming))
	header.Set("X-Consul-Query-Backend", api.QueryBackendBlockingQuery)
	if streaming {
		header.Set("X-Consul-Query-Backend", api.QueryBackendStreaming)
	} else if f.Filtered {
		header.Set("X-Consul-Results-Filtered-By-ACLs", "true")
	}
	if f.Age != "" {
		header.Set("X-Cache", "HIT")
		header.Set("Age", f.Age)
	}
	if f.Deny {
		header.Set("X-Consul-Default-ACL-Policy", "deny")
	}
	if f.Body != "" {
		w.Write([]byte(f.Body))
		return
	}
	json.NewEncoder(w).Encode(body)
}

// prepared is the answer of a prepared query: Consul leaves out what is critical.
func prepared(entries []*api.ServiceEntry, ttl string) api.PreparedQueryExecuteResponse {
	r := api.PreparedQueryExecuteResponse{Nodes: []api.ServiceEntry{}, DNS: api.QueryDNSOptions{TTL: ttl}}
	for _, e := range entries {
		if e.Checks.AggregatedStatus() != api.HealthCritical {
			r.Nodes = append(r.Nodes, *e)
		}
	}
	return r
}
