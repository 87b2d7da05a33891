package discoverytest

import (
	"encoding/json"
	"net/http"
)

const (
	datacentersPath = "/v1/catalog/datacenters"
	coordinatesPath = "/v1/coordinate/datacenters"
)

// Distance is how far the servers of a data centre are from a common place, on one line.
type Distance struct {
	Datacenter string
	Seconds    []float64 // by server
}

// SetDistances sets the coordinates of servers. The first data centre is the agent's.
func (c *Consul) SetDistances(d ...Distance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.distances = d
}

// datacenters answers a query for the names of the data centres, or for the coordinates of
// their servers. These answers have no index.
func (c *Consul) datacenters(w http.ResponseWriter, r *http.Request) {
	type object = map[string]any
	request := parse("", r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, request)
	if f := c.fault; f != nil && f.Status != 0 && (f.Only == nil || f.Only(request)) {
		http.Error(w, f.Body, f.Status)
		return
	}
	answer := []any{}
	for _, d := range c.distances {
		if request.Path == datacentersPath {
			answer = append(answer, d.Datacenter)
			continue
		}
		servers := []any{}
		for _, seconds := range d.Seconds {
			servers = append(servers, object{"Node": d.Datacenter, "Coord": object{"Vec": []float64{seconds, 0}, "Height": 0, "Adjustment": 0, "Error": 1.5}})
		}
		answer = append(answer, object{"Datacenter": d.Datacenter, "AreaID": "wan", "Coordinates": servers})
	}
	_ = json.NewEncoder(w).Encode(answer) // the client is gone
}
