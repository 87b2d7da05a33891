package auth

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"sluice/route/places"
	"sluice/test/verify"
)

// kept is an answer that counts for a time.
func kept(maxAge string) *Answer {
	return &Answer{Status: 200, Header: http.Header{"Cache-Control": {"max-age=" + maxAge}}}
}

// A client that has answers kept for as many questions as it likes takes no more than its share of
// the places, and who has another address keeps what it has there.
func TestKeptAnswersOfOneClientHaveTheirShare(t *testing.T) {
	t.Parallel()
	a := NewAnswers([]string{"cookie"})
	question := func(i int) http.Header { return http.Header{"Cookie": {fmt.Sprint(i)}} }
	count := func() (n int) {
		for i := range a.kept {
			if a.kept[i].Load() != nil {
				n++
			}
		}
		return n
	}
	greedy, other := places.BlockOf(netip.MustParseAddr("10.0.0.1")), places.BlockOf(netip.MustParseAddr("10.0.0.2"))
	key := a.key(question(0))
	for i := 3; i < 200 && a.slot(greedy, &key) == a.slot(other, &key); i++ { // once in 16
		other = places.BlockOf(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	a.Keep(other, question(0), kept("60"))
	for i := range 100_000 {
		a.Keep(greedy, question(i), kept("60"))
	}
	verify.That(t, count() <= 1+answersPerBlock, "%d places are taken", count())
	verify.That(t, a.Find(other, question(0)) != nil, "another client's answer is gone")
	for i := range 100_000 {
		a.Keep(places.Many, question(i), kept("60"))
	}
	verify.That(t, count() > keptAnswers*9/10, "many clients have %d places", count())
}

// An answer counts as long as it says, and an hour at most.
func TestKeptAnswersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			maxAge string
			counts time.Duration
		}{{"60", time.Minute}, {"86400", time.Hour}, {"0", 0}, {"-1", 0}, {"x", 0}, {"99999999999999999999", 0}} {
			a := NewAnswers([]string{"Authorization"})
			question := http.Header{"Authorization": {"Bearer a"}}
			a.Keep(places.Many, question, kept(test.maxAge))
			if test.counts > 0 {
				time.Sleep(test.counts - time.Second)
				verify.That(t, a.Find(places.Many, question) != nil, "max-age=%s: nothing is kept", test.maxAge)
				time.Sleep(time.Second)
			}
			verify.That(t, a.Find(places.Many, question) == nil, "max-age=%s: kept for longer", test.maxAge)
		}
	})
}

// Values of fields are told apart, however they are divided, and no field is not an empty one.
func TestKeptAnswersTellQuestionsApart(t *testing.T) {
	t.Parallel()
	questions := []http.Header{
		{}, {"A": {""}}, {"A": {"x"}}, {"A": {"x", ""}}, {"A": {"", "x"}}, {"B": {"x"}}, {"A": {"x"}, "B": {"x"}}, {"A": {"xx"}}, {"A": {"x\x01x"}}, {"A": {"x", "x"}},
	}
	a := NewAnswers([]string{"a", "b"})
	seen := make(map[[32]byte]int)
	for i, question := range questions {
		key := a.key(question)
		before, known := seen[key]
		verify.That(t, !known, "%v is taken for %v", question, questions[before])
		seen[key] = i
	}
	var none *Answers
	none.Keep(places.Many, questions[0], kept("60"))
	verify.That(t, none.Find(places.Many, questions[0]) == nil, "an answer that nobody keeps")
}
