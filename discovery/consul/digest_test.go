package consul

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// changesOf compares an answer with what t holds.
func changesOf(t *testing.T, table *table, answer string) string {
	t.Helper()
	var got []string
	err := table.compare([]byte(answer), func(c change) {
		if c.kind == changeNoise {
			got = append(got, "noise:"+c.service+"@"+c.node)
		} else {
			got = append(got, c.service+"@"+c.node)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	return strings.Join(slices.Compact(got), " ")
}

func check(node, id, service string, modified int) string {
	return fmt.Sprintf(`{"Node":%q, "CheckID":%q, "Name":"x", "Output":"a \"quoted\" [text] {", "ServiceName":%q, "ServiceTags":["v1"], "Definition":{}, "CreateIndex":1, "ModifyIndex":%d}`,
		node, id, service, modified)
}

func answerOf(entries ...string) string { return "[" + strings.Join(entries, ",") + "]" }

func TestTableTellsWhatChanged(t *testing.T) {
	table := newTable(checksForm)
	steps := []struct{ name, answer, want string }{
		{"the first answer is all new", answerOf(check("n1", "a", "star", 5), check("n1", "b", "moon", 6), check("n2", "serfHealth", "", 7)), "@n2 moon@n1 star@n1"},
		{"the same again", answerOf(check("n1", "a", "star", 5), check("n1", "b", "moon", 6), check("n2", "serfHealth", "", 7)), ""},
		{"another order is no change", answerOf(check("n2", "serfHealth", "", 7), check("n1", "b", "moon", 6), check("n1", "a", "star", 5)), ""},
		{"modified", answerOf(check("n1", "a", "star", 8), check("n1", "b", "moon", 6), check("n2", "serfHealth", "", 7)), "noise:star@n1"},
		{"a check of the node", answerOf(check("n1", "a", "star", 8), check("n1", "b", "moon", 6), check("n2", "serfHealth", "", 9)), "noise:@n2"},
		{"gone and new", answerOf(check("n1", "b", "moon", 6), check("n2", "c", "sun", 10), check("n2", "serfHealth", "", 9)), "star@n1 sun@n2"},
		{"the id of another service", answerOf(check("n1", "b", "mars", 11), check("n2", "c", "sun", 10), check("n2", "serfHealth", "", 9)), "mars@n1 moon@n1"},
		{"twice the same", answerOf(check("n1", "b", "mars", 11), check("n1", "b", "mars", 11), check("n2", "c", "sun", 10)), "@n2"},
		{"and one gone", answerOf(check("n1", "b", "mars", 11), check("n1", "b", "mars", 11)), "sun@n2"},
		{"all again", answerOf(check("n1", "b", "mars", 11), check("n2", "c", "sun", 10), check("n2", "serfHealth", "", 9)), "@n2 sun@n2"},
		{"nothing left", "[]", "@n2 mars@n1 sun@n2"},
	}
	for _, s := range steps {
		if got := changesOf(t, table, s.answer); got != s.want {
			t.Errorf("%s: got %q, want %q", s.name, got, s.want)
		}
	}
	if len(table.nodes) != 0 {
		t.Errorf("%d nodes are kept of an empty answer", len(table.nodes))
	}
}

func TestDamagedAnswerIsAnError(t *testing.T) {
	whole := answerOf(check("n1", "a", "star", 5), check("n1", "b", "moon", 6))
	for n := range len(whole) - 1 {
		if err := newTable(checksForm).compare([]byte(whole[:n]), func(change) {}); err == nil {
			t.Errorf("no error for %q", whole[:n])
		}
	}
	for _, answer := range []string{"null", "{}", `"x"`, `[{"ModifyIndex":"x"}]`, `[{"Node":5}]`, "[1]", "[{},]", "[,{}]", "[{}{}]", "[{}] []", "[]]"} {
		if err := newTable(checksForm).compare([]byte(answer), func(change) {}); err == nil {
			t.Errorf("no error for %q", answer)
		}
	}
}

// Entries that an unreadable answer does not mention are not gone.
func TestTableKeepsEntriesAfterADamagedAnswer(t *testing.T) {
	table := newTable(checksForm)
	whole := answerOf(check("n1", "a", "star", 5), check("n1", "b", "moon", 6))
	changesOf(t, table, whole)
	err := table.compare([]byte(whole[:len(whole)/2]), func(c change) { t.Errorf("changed: %+v", c) })
	if err == nil {
		t.Error("half an answer was accepted")
	}
	if got := changesOf(t, table, whole); got != "" {
		t.Errorf("after a damaged answer changed: %q", got)
	}
}

func TestServicesOfANode(t *testing.T) {
	compare := func(answer string) string {
		var got []string
		err := newTable(nodeServicesForm("n1")).compare([]byte(answer), func(c change) {
			got = append(got, fmt.Sprintf("%s/%s/%d", c.node, c.service, c.modified))
		})
		if err != nil {
			return err.Error()
		}
		return strings.Join(got, " ")
	}
	for _, tt := range []struct{ answer, want string }{
		{`{"Node":{"Node":"n1","ModifyIndex":3},"Services":[{"ID":"a","Service":"star","Port":1,"ModifyIndex":5},{"ID":"b","Service":"moon","ModifyIndex":6}]}`, "n1/star/5 n1/moon/6"},
		{`{"Services":[{"ID":"a","Service":"star","ModifyIndex":5}] , "Node":{}} `, "n1/star/5"},
		{`{"Node":null,"Services":null}`, ""},
	} {
		if got := compare(tt.answer); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.answer, got, tt.want)
		}
	}
	for _, answer := range []string{`{"Services":[]`, `{"Services":[]}}`, `{"Services":[`, `[]`, `{"Services":5}`, `{"Services":null}x`, `{"Services":[],"Node":{}`} {
		if got := compare(answer); !strings.Contains(got, "decode the answer") {
			t.Errorf("%s: got %q, want an error", answer, got)
		}
	}
}

// naive is a table that reads everything.
type naive map[[2]string]entryFact

type entryFact struct {
	service, status string
	modified        int
}

// changes returns what changed in terms of changesOf.
func (n naive) changes(answer []byte) string {
	var checks []struct {
		Node, CheckID, ServiceName, Status string
		ModifyIndex                        int
	}
	if err := json.Unmarshal(answer, &checks); err != nil {
		return err.Error()
	}
	var got []string
	now := make(map[[2]string]bool)
	for _, c := range checks {
		id, fact := [2]string{c.Node, c.CheckID}, entryFact{c.ServiceName, c.Status, c.ModifyIndex}
		now[id] = true
		switch old, ok := n[id]; {
		case !ok:
			got = append(got, fact.service+"@"+c.Node)
		case old == fact:
		case old.service != fact.service:
			got = append(got, old.service+"@"+c.Node, fact.service+"@"+c.Node)
		case old.status != fact.status:
			got = append(got, fact.service+"@"+c.Node)
		default:
			got = append(got, "noise:"+fact.service+"@"+c.Node)
		}
		n[id] = fact
	}
	for id, old := range n {
		if !now[id] {
			got = append(got, old.service+"@"+id[0])
			delete(n, id)
		}
	}
	slices.Sort(got)
	return strings.Join(slices.Compact(got), " ")
}

// FuzzTable makes changes of every kind to a list of checks, and reads it with
// or without indentation.
func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	f.Add([]byte("insert and delete, modify and move"))
	f.Fuzz(func(t *testing.T, steps []byte) {
		type entry struct {
			Node, CheckID, ServiceName, Status, Output string
			ServiceTags                                []string
			ModifyIndex                                int
		}
		var entries []entry
		table, want := newTable(checksForm), make(naive)
		for n, step := range steps {
			at := int(step/8) % (len(entries) + 1)
			fresh := entry{"n" + string('0'+step%3), fmt.Sprint("check ", n), "star", "passing", "\"},{[\\", []string{"]"}, n}
			switch kind := step % 8; {
			case kind < 2 || len(entries) == 0 || at == len(entries):
				entries = slices.Insert(entries, at, fresh)
			case kind == 2:
				entries = slices.Delete(entries, at, at+1)
			case kind == 3:
				entries[at].Status, entries[at].ModifyIndex = entries[at].Status+"!", n
			case kind == 4:
				entries[at].Output, entries[at].ModifyIndex = fresh.CheckID, n
			case kind == 5:
				entries[at].ServiceName, entries[at].ModifyIndex = fresh.CheckID, n
			case kind == 6:
				slices.Reverse(entries)
			case kind == 7:
				entries = entries[at:]
			}
			if step%5 == 0 {
				continue // several changes at once
			}
			answer, err := json.Marshal(entries)
			if step%11 == 0 {
				answer, err = json.MarshalIndent(entries, "", "    ")
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, want := changesOf(t, table, string(answer)), want.changes(answer); got != want {
				t.Fatalf("step %d, %s: got %q, want %q", n, answer, got, want)
			}
			if table.size != len(entries) {
				t.Fatalf("step %d: %d entries, want %d", n, table.size, len(entries))
			}
		}
	})
}

// FuzzTableReadsAnything gives answers of any form: what is accepted is JSON.
func FuzzTableReadsAnything(f *testing.F) {
	f.Add([]byte(answerOf(check("n1", "a", "star", 5), check("", "", "", 0))))
	f.Add([]byte(`[{"Node":"\u00e9\n","ModifyIndex":1}]`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		table := newTable(checksForm)
		if table.compare(answer, func(change) {}) != nil {
			return
		}
		if value := jsontext.Value(answer); !value.IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
			t.Errorf("%q was accepted", answer)
		}
		if err := table.compare(answer, func(c change) { t.Errorf("%q: changed: %+v", answer, c) }); err != nil {
			t.Errorf("%q: %v", answer, err)
		}
	})
}

// BenchmarkTable compares the checks of 10,000 instances, of which one changes.
func BenchmarkTable(b *testing.B) {
	entries := make([]string, 10_000)
	answers := make([][]byte, 2)
	for a := range answers {
		for n := range entries {
			entries[n] = check(fmt.Sprint("node-", n%50), fmt.Sprint("service:star-", n), fmt.Sprint("star-", n/10), n)
		}
		entries[5000+a] = check("node-x", "service:new", "star-new", 20_000)
		answers[a] = []byte(answerOf(entries...))
	}
	table, turn := newTable(checksForm), 0
	b.SetBytes(int64(len(answers[0])))
	b.ReportAllocs()
	for b.Loop() {
		turn++
		if err := table.compare(answers[turn%2], func(change) {}); err != nil {
			b.Fatal(err)
		}
	}
}
