package roll

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/test/verify"
)

func TestBatches(t *testing.T) {
	var peers []admin.Peer
	for n := range 6 { // in turn of the zones a and b
		peers = append(peers, peerOf(n))
	}
	peers[5].Used = false
	peers[4].Leaving = true // it is gone
	for name, test := range map[string]struct {
		o    Options
		want string
	}{
		"one at a time":         {Options{}, "[5] [0] [1] [2] [3]"},
		"two at a time":         {Options{Parallel: 2}, "[5 0] [1 2] [3]"},
		"a zone at a time":      {Options{Group: "zone"}, "[5] [0 2] [1 3]"},
		"a zone, one at a time": {Options{Group: "zone", Parallel: 1}, "[5] [0] [2] [1] [3]"},
		"a node at a time":      {Options{Group: "node"}, "[5] [0] [1] [2] [3]"},
	} {
		t.Run(name, func(t *testing.T) {
			p := verify.Result(NewPlan(test.o, peers, Progress{})).Must(t)
			var got []string
			for _, batch := range p.Batches {
				var ids []string
				for _, peer := range batch {
					ids = append(ids, strings.TrimPrefix(peer.ID, "star-"))
				}
				got = append(got, fmt.Sprint(ids))
			}
			verify.That(t, strings.Join(got, " ") == test.want, "batches %v, want %v", got, test.want)
		})
	}
}

func TestCommandOfAnInstance(t *testing.T) {
	p := peerOf(1)
	got := verify.Result(expand([]string{"ssh", "{node}", "deploy --id={id} {service} {host} {port} {address}", "{other}"}, "star", p)).Must(t)
	want := []string{"ssh", "node-1", "deploy --id=star-1 star 10.0.0.1 80 10.0.0.1:80", "{other}"}
	verify.That(t, slices.Equal(got, want), "%q", got)
	for _, id := range []string{"a;reboot", "$(reboot)", "-rf", "a b", "`x`", "a\nb", ""} {
		p.ID = id
		_, err := expand([]string{"sh", "-c", "deploy {id}"}, "star", p)
		verify.That(t, err != nil, "%q is passed on", id)
		_, err = expand([]string{"deploy", "{node}"}, "star", p)
		verify.That(t, err == nil, "%q: %v", id, err)
	}
}

func TestContinue(t *testing.T) {
	done := []Instance{InstanceOf(peerOf(1))}
	record := &Record{Command: []string{"deploy"}, By: "ops", Progress: Progress{Done: done, Present: done}}
	for name, test := range map[string]struct {
		record          *Record
		command         string
		resume, restart bool
		done            int
		wrong           string
	}{
		"nothing to resume":  {nil, "deploy", true, false, 0, "nothing to resume"},
		"first":              {nil, "deploy", false, false, 0, ""},
		"restart of nothing": {nil, "deploy", false, true, 0, ""},
		"neither":            {record, "deploy", false, false, 0, "--resume goes on, --restart begins anew"},
		"resume":             {record, "deploy", true, false, 1, ""},
		"restart":            {record, "other", false, true, 0, ""},
		"another command":    {record, "other", true, false, 0, "another command"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Continue(test.record, []string{test.command}, test.resume, test.restart)
			verify.That(t, len(p.Done) == test.done && (err == nil) == (test.wrong == ""), "%+v, %v", p, err)
			verify.That(t, err == nil || strings.Contains(err.Error(), test.wrong), "%v", err)
			verify.That(t, !test.restart || test.record == nil || len(p.Present) == 1, "the drains of the roll that has stopped would stay: %+v", p)
		})
	}
}
