package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/consul"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/test/verify"
)

func TestConsulMarksDifferences(t *testing.T) {
	same := instance("star", "a-same", "10.0.0.1")
	both := instance("star", "b-differs", "10.0.0.2")
	changed := both
	changed.Status, changed.Weight, changed.Tags, changed.Meta, changed.Detail = discovery.StatusWarning, 3, []string{"v2"}, map[string]string{"k": "v"}, "check: slow"
	registered := instance("star", "c-registered", "10.0.0.3")
	pooled := instance("star", "d-pooled", "10.0.0.4")
	moved := both
	moved.Address = "10.0.0.9"

	answer := consulsource.Answer{Answer: consul.Answer{Index: 42, KnownLeader: true, LastContact: 1500 * time.Microsecond}}
	h := handlerOf(Options{Services: Services{
		Pools: poolsOf(newPool(t, "web", same, both, pooled), newPool(t, "static")),
		Consul: func(ctx context.Context, service string) (consulsource.Answer, error) {
			if service != "web" {
				return consulsource.Answer{}, ErrNotInConsul
			}
			_, ok := ctx.Deadline()
			verify.That(t, ok, "no deadline")
			return answer, nil
		},
	}})

	answer.Instances = []discovery.Instance{registered, changed, same, moved}
	for _, path := range []string{"/consul/web", "/consul"} {
		var got Comparison
		if path == "/consul" {
			all := getJSON[[]Comparison](t, h, path)
			verify.Require(t, len(all) == 1, "got %+v", all)
			got = all[0]
		} else {
			got = getJSON[Comparison](t, h, path)
		}
		verify.That(t, got.Service == "web" && got.Index == 42 && got.KnownLeader && got.LastContactMS == 1.5 && !got.Same && got.Error == "", "%s: got %+v", path, got)
		type mark struct{ id, address, difference string }
		var marks []mark
		for _, i := range got.Instances {
			marks = append(marks, mark{i.ID, i.Address, i.Difference})
			verify.That(t, (i.Consul == nil) == (i.Difference == onlyInPool) && (i.Pool == nil) == (i.Difference == onlyInConsul), "%s: %+v", path, i)
		}
		want := []mark{
			{"a-same", "10.0.0.1:80", ""},
			{"b-differs", "10.0.0.2:80", differs},
			{"b-differs", "10.0.0.9:80", onlyInConsul},
			{"c-registered", "10.0.0.3:80", onlyInConsul},
			{"d-pooled", "10.0.0.4:80", onlyInPool},
		}
		verify.That(t, slices.Equal(marks, want), "%s:\ngot  %v\nwant %v", path, marks, want)
		b := got.Instances[1]
		verify.Slices(t, b.Fields, []string{"status", "weight", "tags", "meta"}, "%s: fields", path)
		verify.That(t, b.Consul.Status == "warning" && b.Consul.Detail == "check: slow" && b.Consul.Weight == 3 && b.Pool.Status == "passing" && b.Pool.State == "up", "%s: got %+v and %+v", path, b.Consul, b.Pool)
	}

	// What sluice does not use is no agreement, and the answer says why.
	long := instance("star", strings.Repeat("e", 200_000), "10.0.0.6")
	answer.Instances, answer.Skipped = []discovery.Instance{pooled, both, same, long}, []consulsource.Skipped{{ID: "f", Node: "n", Reason: "it has port 0"}}
	with := getJSON[Comparison](t, h, "/consul/web")
	verify.That(t, !with.Same, "same, with instances that are skipped")
	last := with.Instances[len(with.Instances)-2:]
	verify.That(t, last[0].ID == "f" && last[0].Difference == skipped && last[0].Reason == "it has port 0", "the one without a port: %+v", last[0])
	verify.That(t, len(last[1].ID) <= maxShown && last[1].Difference == skipped && strings.HasPrefix(last[1].Reason, "its id has 200000 octets"), "the long one: %.300v", last[1])

	answer.Instances, answer.Skipped = []discovery.Instance{pooled, both, same}, nil
	verify.That(t, getJSON[Comparison](t, h, "/consul/web").Same, "equal sets are not the same")
}

// The pool of a service that was removed and added again counts, not the one that still drains.
func TestConsulComparesThePoolInUse(t *testing.T) {
	star := instance("star", "a", "10.0.0.1")
	removed, inUse := newPool(t, "web", star), newPool(t, "web", star)
	token := verify.Result(removed.Pick(nil)).Must(t)
	defer token.Done(balancer.Outcome{})
	removed.Close()
	consul := func(context.Context, string) (consulsource.Answer, error) {
		return consulsource.Answer{Instances: []discovery.Instance{star}}, nil
	}
	for _, pools := range [][]*balancer.Pool{{removed, inUse}, {inUse, removed}} {
		h := handlerOf(Options{Services: Services{Pools: poolsOf(pools...), Consul: consul}})
		got := getJSON[Comparison](t, h, "/consul/web")
		verify.That(t, got.Same && len(got.Instances) == 1 && got.Instances[0].Pool.State == "up", "got %+v, %+v", got, got.Instances[0].Pool)
	}
}

// A service is found by its name in Consul too, if that is no other one's here, and ?raw shows what
// Consul itself says.
func TestConsulByItsNameAndRaw(t *testing.T) {
	h := handlerOf(Options{Services: Services{
		Pools: poolsOf(newPool(t, "web"), newPool(t, "a"), newPool(t, "b"), newPool(t, "twice")),
		Named: func(name string) []string {
			return map[string][]string{"star": {"web"}, "twice": {"a", "b"}, "both": {"a", "b"}}[name]
		},
		Consul: func(context.Context, string) (consulsource.Answer, error) { return consulsource.Answer{}, nil },
		Raw: func(ctx context.Context, service string) (json.RawMessage, error) {
			_, ok := ctx.Deadline()
			verify.That(t, ok, "no deadline")
			if service != "web" {
				return nil, errors.New("connection refused")
			}
			return json.RawMessage(`[{"Node":{"ID":"n"}}]`), nil
		},
	}})
	verify.Equal(t, getJSON[Comparison](t, h, "/consul/star").Service, "web", "the service that is star in Consul")
	verify.Equal(t, getJSON[Comparison](t, h, "/consul/twice").Service, "twice", "sluice's own name")
	status, body := get(t, h, "/consul/both")
	verify.That(t, status == http.StatusNotFound && strings.Contains(body, "want one of a, b"), "of two services: %d %s", status, body)
	for path, want := range map[string]string{
		"/consul/star?raw": `200 [{"Node":{"ID":"n"}}]`, "/consul/web?raw=1": `200 [{"Node":{"ID":"n"}}]`, "/consul/a?raw": `502 {"error":"connectionrefused"}`,
	} {
		w := answerOf(h, httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8081"+path, nil))
		verify.Equal(t, fmt.Sprint(w.Code, " ", strings.Join(strings.Fields(w.Body.String()), "")), want, "%s", path)
	}
}

func TestConsulUnreachable(t *testing.T) {
	h := handlerOf(Options{Services: Services{
		Pools: poolsOf(newPool(t, "a"), newPool(t, "b")),
		Consul: func(_ context.Context, service string) (consulsource.Answer, error) {
			if service == "a" {
				return consulsource.Answer{}, errors.New("connection refused")
			}
			return consulsource.Answer{Answer: consul.Answer{Index: 7}}, nil
		},
	}})
	status, body := get(t, h, "/consul/a")
	got := decode[Comparison](t, body)
	verify.That(t, status == http.StatusBadGateway && got.Error == "connection refused" &&
		!got.Same,
		"got %d %s", status, body)
	all := getJSON[[]Comparison](t, h, "/consul")
	verify.That(t, len(all) == 2 && all[0].Error == "connection refused" && all[1].Index == 7 && all[1].Same, "got %+v", all)
}

// If Consul hangs, the response for many services takes one timeout, not one for each.
func TestOneTimeoutForAllServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pools []*balancer.Pool
		for i := range 50 {
			pools = append(pools, newPool(t, fmt.Sprint("service", i)))
		}
		h := handlerOf(Options{Services: Services{
			Pools: poolsOf(pools...),
			Consul: func(ctx context.Context, _ string) (consulsource.Answer, error) {
				<-ctx.Done()
				return consulsource.Answer{}, ctx.Err()
			},
		}})
		begin := time.Now()
		got := getJSON[[]Comparison](t, h, "/consul")
		verify.Equal(t, time.Since(begin), consulTimeout, "answered after")
		verify.That(t, len(got) == 50 && got[0].Error != "" && got[49].Error != "", "got %d services: %+v", len(got), got)
	})
}
