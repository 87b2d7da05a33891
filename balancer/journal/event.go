package journal

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/observe/events"
)

// feedEvent returns the event of the feed for an event of a pool, or false if another event of
// the pool stands for it.
func feedEvent(e balancer.Event) (events.Event, bool) {
	f := events.Event{Service: e.Pool, Level: events.Info}
	if levelOf(e) >= zerolog.WarnLevel {
		f.Level = events.Warning
	}
	peer := ""
	if e.Peer != nil {
		f.Peer, f.Address, f.Node = e.Peer.ID.ID, e.Peer.Address(), e.Peer.Instance().Node
		peer = f.Peer
	}
	switch e.Kind {
	case balancer.EventAdded:
		f.Kind, f.Text = events.KindJoined, peer+" joined"+events.Because(e.Detail)
	case balancer.EventRemoved:
		f.Kind, f.Text = events.KindLeft, peer+" left: the set of its source has it no more"
	case balancer.EventUpdated:
		if u := e.Update; u.Old.Status != u.New.Status && e.Was != e.State && slices.Equal(u.Old.Tags, u.New.Tags) && maps.Equal(u.Old.Meta, u.New.Meta) {
			return f, false // EventState follows
		}
		f.Kind, f.Text = updateKind(e), peer+" changed"+events.Because(e.Detail)
		if f.Kind == events.KindProbation {
			f.Level = events.Warning
		}
	case balancer.EventState:
		f.Kind, f.Text = stateKind(e), fmt.Sprintf("%s is %s, it was %s%s", peer, e.State, e.Was, events.Because(strings.Join(e.Reasons, "; ")))
	case balancer.EventDrained:
		f.Kind, f.Text = events.KindDrained, peer+" has drained: no request is in flight"
	case balancer.EventCut:
		f.Kind, f.Text = events.KindCut, peer+" was cut"+events.Because(e.Detail)
	case balancer.EventPanic:
		f.Kind, f.Text = events.KindPanic, "Panic, failing peers get requests too"+events.Because(e.Detail)
	case balancer.EventPanicOver:
		f.Kind, f.Text = events.KindPanicOver, "The panic is over"+events.Because(e.Detail)
	case balancer.EventRefused:
		f.Kind, f.Text = events.KindForbidden, "No request may go to "+peer+events.Because(e.Detail)
	}
	return f, true
}

// updateKind returns the most important change of an instance.
func updateKind(e balancer.Event) events.Kind {
	was, is := e.Update.Old, e.Update.New
	switch {
	case was.Probation.IsZero() && !is.Probation.IsZero():
		return events.KindProbation
	case !was.Probation.IsZero() && is.Probation.IsZero():
		return events.KindListed
	case was.Weight != is.Weight:
		return events.KindWeight
	}
	return events.KindChanged
}

func stateKind(e balancer.Event) events.Kind {
	switch {
	case e.State == balancer.StateUnhealthy:
		return events.KindUnhealthy
	case e.State == balancer.StateEjected:
		return events.KindEjected
	case e.State == balancer.StateDraining:
		return events.KindDraining
	case e.Was == balancer.StateDraining:
		return events.KindEnabled
	case e.Was == balancer.StateUp:
		return events.KindWeight
	case e.Was == balancer.StateWarming:
		return events.KindWarm
	}
	return events.KindRecovered
}
