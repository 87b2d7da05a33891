package consul

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// changesOf compares an answer with what t holds.
func changesOf(t *testing.T, table *table, answer string) string {
	t.Helper()
	var got []string
	err := table.compare(func(each func(fact)) error {
		return readChecks(strings.NewReader(answer), each)
	}, func(c change) {
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
	table := newTable()
	steps := []struct{ name, answer, want string }{
		{"the first answer is all new", answerOf(check("n1", "a", "star", 5), check("n1", "b", "moon", 6), check("n2", "serfHealth", "", 7)), "@n2 moon@n1 star@n1"},
		{"the same again", answerOf(check("n1", "a", "star", 5), check("n1", "b", "moon", 6), check("n2", "serfHealth", "", 7)), ""},
		{"another order is no change", answerOf(check("n2", "serfHealth", "", 7), check("n1", "b", "moon", 6), check("n1", "a", "star", 5)), ""},
		{"modified", answerOf(check("n1", "a", "star", 8), check("n1", "b", "moon", 6), check("n2", "serfHealth", "", 7)), "noise:star@n1"},
		{"a check of the node", answerOf(check("n1", "a", "star", 8), check("n1", "b", "moon", 6), check("n2", "serfHealth", "", 9)), "noise:@n2"},
		{"gone and new", answerOf(check("n1", "b", "moon", 6), check("n2", "c", "sun", 10), check("n2", "serfHealth", "", 9)), "star@n1 sun@n2"},
		{"the id of another service", answerOf(check("n1", "b", "mars", 11), check("n2", "c", "sun", 10), check("n2", "serfHealth", "", 9)), "mars@n1 moon@n1"},
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
		if err := readChecks(strings.NewReader(whole[:n]), func(fact) {}); err == nil {
			t.Errorf("no error for %q", whole[:n])
		}
	}
	for _, answer := range []string{"null", "{}", `"x"`, `[{"ModifyIndex":"x"}]`, `[{"Node":5}]`, "[1]"} {
		if err := readChecks(strings.NewReader(answer), func(fact) {}); err == nil {
			t.Errorf("no error for %q", answer)
		}
	}
}

// Entries that an unreadable answer does not mention are not gone.
func TestTableKeepsEntriesAfterADamagedAnswer(t *testing.T) {
	table := newTable()
	whole := answerOf(check("n1", "a", "star", 5), check("n1", "b", "moon", 6))
	changesOf(t, table, whole)
	err := table.compare(func(each func(fact)) error {
		return readChecks(strings.NewReader(whole[:len(whole)/2]), each)
	}, func(c change) { t.Errorf("changed: %+v", c) })
	if err == nil {
		t.Error("half an answer was accepted")
	}
	if got := changesOf(t, table, whole); got != "" {
		t.Errorf("after a damaged answer changed: %q", got)
	}
}

func TestReadNodeServices(t *testing.T) {
	read := func(answer string) string {
		var got []string
		err := readNodeServices(strings.NewReader(answer), "n1", func(f fact) {
			got = append(got, fmt.Sprintf("%s/%s/%s/%d", f.node, f.id, f.service, f.modified))
		})
		if err != nil {
			return err.Error()
		}
		return strings.Join(got, " ")
	}
	got := read(`{"Node":{"Node":"n1","ModifyIndex":3},"Services":[{"ID":"a","Service":"star","Port":1,"ModifyIndex":5},{"ID":"b","Service":"moon","ModifyIndex":6}]}`)
	if want := "n1/a/star/5 n1/b/moon/6"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := read(`{"Node":null,"Services":null}`); got != "" {
		t.Errorf("a node that is not there: %q", got)
	}
}

func FuzzReadChecks(f *testing.F) {
	f.Add([]byte(answerOf(check("n1", "a", "star", 5), check("", "", "", 0))))
	f.Add([]byte(`[{"Node":"\u00e9\n","ModifyIndex":1e3}]`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		n := 0
		if readChecks(bytes.NewReader(answer), func(fact) { n++ }) != nil {
			return
		}
		if again := 0; readChecks(bytes.NewReader(answer), func(fact) { again++ }) != nil || again != n {
			t.Errorf("%q: first %d, then %d entries", answer, n, again)
		}
	})
}

// BenchmarkReadChecks compares the checks of 10,000 instances.
func BenchmarkReadChecks(b *testing.B) {
	entries := make([]string, 10_000)
	for n := range entries {
		entries[n] = check(fmt.Sprint("node-", n%50), fmt.Sprint("service:star-", n), fmt.Sprint("star-", n/10), n)
	}
	answer := []byte(answerOf(entries...))
	table := newTable()
	b.SetBytes(int64(len(answer)))
	b.ReportAllocs()
	for b.Loop() {
		if err := table.compare(func(each func(fact)) error { return readChecks(bytes.NewReader(answer), each) }, func(change) {}); err != nil {
			b.Fatal(err)
		}
	}
}
