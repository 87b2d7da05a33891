package socket

import (
	"slices"
	"sluice/test/verify"
	"testing"
)

// Connections that begin together end at times that are spread over a tenth of the limit.
func TestLimitsOfConnectionsDiffer(t *testing.T) {
	const limit, connections = 10_000, 100
	values := []int64{limit * 9 / 10, limit}
	for n := range uint32(connections) {
		l := Lifetime{number: 4_000_000_000 + n} // the number overflows meanwhile
		values = append(values, l.earlier(limit))
	}
	slices.Sort(values)
	verify.That(t, values[0] >= limit*9/10 && values[len(values)-1] <= limit, "from %d to %d", values[0], values[len(values)-1])
	for i := range values[1:] {
		gap := values[i+1] - values[i]
		verify.That(t, gap <= 3*limit/10/connections, "no connection between %d and %d", values[i], values[i+1])
	}
	for _, small := range []int64{1, 5} {
		if l := (Lifetime{number: 7}); l.earlier(small) != small {
			t.Errorf("the limit %d becomes %d", small, l.earlier(small))
		}
	}
}
