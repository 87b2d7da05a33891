package live

import (
	"context"
	"encoding/json"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/observe/events"
	"sluice/test/filled"
	"sluice/test/verify"
)

// Every field of the state of a source survives an upgrade, a restart and a reload.
func TestEveryFieldOfASourceIsHandedOver(t *testing.T) {
	path, values := filepath.Join(t.TempDir(), "history"), filled.New(t)
	state := func() (s config.Source) {
		values.Fill(&s)
		return s
	}
	file := config.Source{Name: "sluice.yaml", Kind: config.KindFile, Documents: []config.Document{{Name: "sluice.yaml"}}}
	want := []config.Source{file, state()}
	keep := func() *config.History {
		h := new(config.History)
		h.Keep(path, func(err error, message string) { t.Error(message, err) })
		return h
	}
	check := func(how string, h *config.History) {
		t.Helper()
		got := h.Current().Sources
		verify.That(t, reflect.DeepEqual(got, want), "%s:\ngot  %+v\nwant %+v", how, got, want)
	}
	h := keep()
	h.SetOwned(true)
	h.Applied(config.Revision{Sources: want})
	check("a restart", keep())
	want = []config.Source{file, state()}
	h.Unchanged(want)
	check("a restart after a change of the state alone", keep())
	want = []config.Source{file, state()}
	h.Resume(nil, want)
	check("a restart after a restart", keep())

	data := verify.Result(json.Marshal(h)).Must(t)
	given, next := new(config.History), keep()
	err := json.Unmarshal(data, given)
	verify.Require(t, err == nil && next.Restore(given), "%v", err)
	check("an upgrade", next)

	var before []config.Source
	d := newDocuments(func(_ config.Dynamic, s config.Source) Source {
		before = append(before, s)
		return idleSource{}
	}, events.New(), zerolog.Nop())
	defer d.end()
	y := config.Dynamic{File: want[1].Name}
	d.follow(t.Context(), []config.Dynamic{y}, want)
	y.AllowEmpty = true
	d.follow(t.Context(), []config.Dynamic{y}, nil)
	for _, got := range before {
		verify.That(t, reflect.DeepEqual(got, *want[1].Pin.Said), "a reload:\ngot  %+v\nwant %+v", got, *want[1].Pin.Said)
	}
	verify.Equal(t, len(before), 2, "sources")
}

// idleSource says nothing.
type idleSource struct{}

func (idleSource) Run(ctx context.Context, _ func(Report)) error {
	<-ctx.Done()
	return ctx.Err()
}
