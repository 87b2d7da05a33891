package live

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/config"
	"sluice/discovery"
	"sluice/test/verify"
)

// said returns what a source says: documents with these names, whose text is the name and version.
func said(version int, names ...string) (s config.Source) {
	s.Name = "source/"
	for _, name := range names {
		s.Documents = append(s.Documents, config.Document{Name: name, Text: fmt.Sprint(name, version)})
	}
	return s
}

// texts are the texts of the documents that count.
func (m *Memory) texts() string { return textsOf(m.State) }

func textsOf(s config.Source) string {
	var all []string
	for _, d := range s.Documents {
		all = append(all, d.Text)
	}
	return strings.Join(all, " ")
}

// What disappears with the last document, or with the memory of the source, counts until it is
// written again, or for ten minutes. What disappears otherwise was deleted.
func TestMemory(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	type step struct {
		after time.Duration
		r     Report
		want  string
	}
	for name, test := range map[string]struct {
		empties bool
		steps   []step
	}{
		"one is deleted": {steps: []step{
			{0, Report{Said: said(1, "a", "b", "source/")}, "a1 b1 source/1"},
			{0, Report{Said: said(1, "a")}, "a1"},
		}},
		"the last disappears": {steps: []step{
			{0, Report{Said: said(1, "a", "b", "source/")}, "a1 b1 source/1"},
			{0, Report{Said: said(1)}, "a1 b1 source/1"},
			{9 * time.Minute, Report{Said: said(2, "b")}, "a1 b2 source/1"}, // the first is written again
			{0, Report{Said: said(2, "c")}, "a1 c2 source/1"},               // it was back: now a deletion counts
			{time.Minute, Report{Said: said(2, "c")}, "c2"},
		}},
		"the last is deleted": {steps: []step{
			{0, Report{Said: said(1, "a", "b")}, "a1 b1"},
			{0, Report{Said: said(1), Deleted: true}, ""},
		}},
		"the memory is lost": {steps: []step{
			{0, Report{Said: said(1, "a", "b", "c")}, "a1 b1 c1"},
			{0, Report{Said: said(2, "b", "d"), Forgot: true}, "a1 b2 c1 d2"},
			{time.Minute, Report{Said: said(3, "c"), Forgot: true}, "a1 b2 c3 d2"}, // and again
			{9 * time.Minute, Report{Said: said(3, "c")}, "b2 c3 d2"},
			{time.Minute, Report{Said: said(3, "c")}, "c3"},
		}},
		"the clock is put back": {steps: []step{
			{0, Report{Said: said(1, "a", "b")}, "a1 b1"},
			{0, Report{Said: said(1)}, "a1 b1"},
			{-24 * time.Hour, Report{Said: said(1)}, "a1 b1"},
		}},
		"allow_empty": {empties: true, steps: []step{
			{0, Report{Said: said(1, "a", "b")}, "a1 b1"},
			{0, Report{Said: said(1, "b"), Forgot: true}, "b1"},
			{0, Report{Said: said(1)}, ""},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			now := begin
			m := Memory{Empties: test.empties}
			for i, s := range test.steps {
				now = now.Add(s.after)
				next := m.Take(s.r, now)
				told := next.IsZero() == (len(m.State.Lost) == 0) && (m.Problem() == nil) == next.IsZero()
				verify.Require(t, m.texts() == s.want && told, "step %d: %q, want %q; until %v; %v", i, m.texts(), s.want, next, m.Problem())
			}
			expired := m.Expire(now.Add(discovery.Stay)).IsZero() && m.Problem() == nil
			verify.That(t, expired && m.texts() == textsOf(test.steps[len(test.steps)-1].r.Said), "later %q", m.texts())
		})
	}
}

// Whatever a source says and forgets, and whenever another process goes on with the state: no
// document that was not deleted goes before its time, none that was deleted comes back, and what is
// written is used.
func TestMemoryAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(verify.Seed(t), 0))
	for range 200 {
		now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		m := Memory{}
		written := make(map[string]string)   // in the registry
		lostAt := make(map[string]time.Time) // what the registry has lost
		texts := make(map[string]string)     // of these
		for step := range 60 {
			forgot, deleted := false, true
			name := string(rune('a' + random.IntN(6)))
			switch random.IntN(8) {
			case 0, 1, 2:
				written[name] = fmt.Sprint(name, step)
			case 3:
				delete(written, name)
			case 4: // the registry loses its memory, or the memory of some
				forgot, deleted = true, false
				for key, text := range written {
					if random.IntN(2) == 0 {
						lostAt[key], texts[key] = now, text
						delete(written, key)
					}
				}
			case 5: // the last disappears, and nothing says why
				deleted = false
				for key, text := range written {
					lostAt[key], texts[key] = now, text
				}
				clear(written)
			case 6: // an upgrade, a restart, or a reload
				data := verify.Result(json.Marshal(m.State)).Must(t)
				var state config.Source
				verify.NoError(t, json.Unmarshal(data, &state))
				m = Memory{State: state}
				continue
			case 7:
				now = now.Add(time.Duration(random.IntN(300)) * time.Second)
			}
			var report config.Source
			want := make(map[string]string)
			for key, text := range written {
				report.Documents = append(report.Documents, config.Document{Name: key, Text: text})
				delete(lostAt, key)
				want[key] = text
			}
			slices.SortFunc(report.Documents, func(a, b config.Document) int { return strings.Compare(a.Name, b.Name) })
			for key, at := range lostAt {
				if now.Sub(at) >= discovery.Stay {
					delete(lostAt, key)
				} else {
					want[key] = texts[key]
				}
			}
			m.Take(Report{Said: report, Forgot: forgot, Deleted: deleted && !forgot}, now)
			got := make(map[string]string)
			for _, d := range m.State.Documents {
				got[d.Name] = d.Text
			}
			verify.Require(t, fmt.Sprint(got) == fmt.Sprint(want) && slices.IsSortedFunc(m.State.Documents, func(a, b config.Document) int { return strings.Compare(a.Name, b.Name) }), "step %d: %v count, want %v", step, m.State, want)
		}
	}
}
