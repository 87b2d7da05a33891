package long

import (
	"testing"

	"sluice/test/verify"
)

func TestSkipsUnlessAllRun(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Setenv("SLUICE_TESTS", map[bool]string{true: "all"}[all])
		ran := false
		t.Run("", func(t *testing.T) {
			Test(t)
			ran = true
		})
		n := Count(t, 1, 2)
		verify.That(t, ran == all && (n == 2) == all, "all is %t: the test ran: %t, count %d", all, ran, n)
	}
}
