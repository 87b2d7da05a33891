package release

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/operator"
	"sluice/test/verify"
)

// newStore returns a store of shares in which a verdict yields to an operator.
func newStore(o operator.StoreOptions[Share]) *operator.Store[Share] {
	o.Parse, o.Log = parse, zerolog.Nop()
	o.Yields = func(_, now Share) bool { return now.By == ByOperator }
	return operator.NewStore(o)
}

// share returns a share of a service.
func share(service string, size float64, by string) Share {
	return Share{Service: service, Group: "canary", Share: size, Configured: 0.5, By: by, Since: time.Now().UTC()}
}

// The state of shares goes on as the state of other orders does. A verdict that Consul does not
// have yet still yields then to an operator's share, also below another prefix; one that an
// operator has resumed does not.
func TestAStateOfSharesGoesOn(t *testing.T) {
	old := newStore(operator.StoreOptions[Share]{Backing: operator.Backing{Prefix: "edge"}})
	verify.NoError(t, old.Put(share("verdict", 0, ByJudge), true, nil))
	verify.NoError(t, old.Put(share("resumed", 0.2, ByJudge), false, nil))
	text := verify.Result(json.Marshal(old.State())).Must(t)
	var state operator.State[Share]
	verify.NoError(t, json.Unmarshal(text, &state))
	for _, prefix := range []string{"edge", "others"} {
		next := newStore(operator.StoreOptions[Share]{Backing: operator.Backing{Prefix: prefix}})
		next.Restore(state)
		for service, yields := range map[string]bool{"verdict": true, "resumed": false} {
			e := next.Entry(Key(service))
			verify.That(t, !e.Absent && e.Pending && e.Conditional == yields && e.Value.Same(old.All()[Key(service)]), "%s below %s: %+v", service, prefix, e)
		}
	}
}

// A proposal is not in the state: the present share is.
func TestAProposalIsNotHandedOver(t *testing.T) {
	s := newStore(operator.StoreOptions[Share]{Backing: operator.Backing{Prefix: "edge"}})
	present := share("star", 0.2, ByJudge)
	s.Restore(operator.State[Share]{Version: 1, Prefix: "edge", Orders: []operator.Saved[Share]{{Order: present, Beside: operator.Beside{Shared: true}}}})
	verify.That(t, s.Propose(share("star", 0.3, ByJudge)) && !s.Propose(share("star", 0.4, ByJudge)), "want one proposal at a time")
	state := s.State()
	verify.That(t, len(state.Orders) == 1 && state.Orders[0].Order.Same(present) && state.Orders[0].Shared, "the state is %+v", state)
}

// A share is retracted unless it is another one by then.
func TestRetractedShares(t *testing.T) {
	s := newStore(operator.StoreOptions[Share]{})
	first, second := share("star", 0.2, ByJudge), share("star", 0.3, ByOperator)
	verify.NoError(t, s.Put(first, false, nil))
	verify.NoError(t, s.Put(second, false, nil))
	verify.NoError(t, s.Retract(first))
	now := s.All()[first.Key()]
	verify.That(t, now.Same(second), "after the retraction of an earlier one: %+v", now)
	verify.NoError(t, s.Retract(second))
	all := s.All()
	verify.That(t, len(all) <= 0, "after the retraction: %+v", all)
}

func TestParsedShares(t *testing.T) {
	for text, want := range map[string]string{
		`{"group":"canary","share":0.2}`: "", `{"service":"star","share":1}`: "", `{"service":"moon","share":1}`: "belongs to the key shares/moon",
		`{"share":2}`: "want a number from 0 to 1", `true`: "not a share", `{"share":1,"since":"2026-01-02T03:04:05+24:00"}`: "timezone",
	} {
		s, err := parse("shares/star", []byte(text))
		verify.That(t, (want != "" || err == nil && s.Service == "star") && (want == "" || err != nil && strings.Contains(err.Error(), want)), "%s: %+v, %v", text, s, err)
	}
}
