package config

import (
	"fmt"
	"path/filepath"
	"testing"

	"sluice/test/verify"
)

func TestHistoryNumbersRevisionsAndDropsOldOnes(t *testing.T) {
	var h History
	r := h.Current()
	verify.That(t, r.Number == 0 && r.Config == nil, "current of an empty history: %+v", r)
	for range keepRevisions + 5 {
		h.Applied(Revision{Source: "f"})
	}
	r = h.Current()
	verify.That(t, r.Number == keepRevisions+5 && !r.Time.IsZero(), "current: %+v", r)
	all := h.Revisions()
	verify.That(t, len(all) == keepRevisions && all[0].Number == keepRevisions+5 && all[len(all)-1].Number == 6, "%d revisions, from %d to %d", len(all), all[0].Number, all[len(all)-1].Number)
}

func TestHistoryCountsLoads(t *testing.T) {
	var h History
	h.Applied(Revision{Hash: "one"})
	h.Refused()
	verify.Equal(t, h.Reloads(), Reloads{Applied: 1, Refused: 1}, "after a refusal")
	h.Unchanged([]Source{{Name: "two"}}) // another text with the same configuration
	r := h.Current()
	verify.That(t, r.Sources[0].Name == "two" && r.Number == 1, "after Unchanged: %+v", r)
	h.Refused()
	h.Applied(Revision{})
	verify.Equal(t, h.Reloads(), Reloads{Applied: 2, Refused: 2}, "after another refusal, and Applied")
}

// Revisions of given shares do not drive out the documents, here and in the file.
func TestGivenSharesAreFew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := kept(t, path)
	for i := range 60 {
		h.Applied(revisionWith(fmt.Sprint(i)))
	}
	var last Revision
	for i := range 70 {
		last = h.RecordShares(fmt.Sprint("share ", i), []Change{{"a", "1%", "2%"}})
	}
	verify.That(t, last.Number == 130 && last.OnlyShares && last.Sources[0].Documents[0].Text == "59" && len(last.Diff) == 1, "the last: %+v", last)
	verify.Equal(t, h.Reloads().Applied, 60, "reloads are counted")
	for name, history := range map[string]*History{"here": h, "in the file": kept(t, path)} {
		given := 0
		for _, r := range history.Revisions() {
			if r.OnlyShares {
				given++
			}
		}
		n := len(history.Revisions())
		verify.That(t, given == keepOnlyShares && n >= keepRevisions-keepOnlyShares && history.Current().Reason == "share 69", "%s: %d revisions, %d of given shares, the last %q", name, n, given, history.Current().Reason)
	}
}

// Who writes documents to a registry does not drive out the last revision of each text of the file,
// here and in the history's file.
func TestDocumentsDoNotDriveOutTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := kept(t, path)
	document := 0
	apply := func(file string, n int) {
		for range n {
			document++
			h.Applied(Revision{Sources: []Source{
				{Name: "sluice.yaml", Documents: []Document{{Name: "sluice.yaml", Text: file}}},
				{Name: "consul_kv:sluice/", Documents: []Document{{Name: "shop", Text: fmt.Sprint(document)}}},
			}})
		}
	}
	apply("first", 3)
	apply("second", 1)
	apply("third", 4*keepRevisions)
	for name, history := range map[string]*History{"here": h, "in the file": kept(t, path)} {
		all := history.Revisions()
		verify.Require(t, len(all) == keepRevisions, "%s: %d revisions", name, len(all))
		oldest := all[len(all)-2:]
		verify.That(t, oldest[1].Number == 3 && oldest[0].Number == 4 && all[0].Number == uint64(document), "%s: revisions %d, %d, …, %d",
			name, oldest[1].Number, oldest[0].Number, all[0].Number)
	}
}

// The latest revision keeps its Config, older ones up to a number of routes.
func TestHistoryForgetsOldRoutes(t *testing.T) {
	var h History
	large := &Config{Routes: make([]Route, keepRoutes/2)}
	for range 3 {
		h.Applied(Revision{Config: large})
	}
	kept := func() (kept []bool) {
		for _, r := range h.Revisions() {
			kept = append(kept, r.Config != nil)
		}
		return kept
	}
	verify.Equal(t, fmt.Sprint(kept()), "[true true false]", "fmt.Sprint(kept())")
	h.Applied(Revision{Config: &Config{Routes: make([]Route, keepRoutes+1)}})
	verify.Equal(t, fmt.Sprint(kept()), "[true false false false]", "fmt.Sprint(kept())")
}
