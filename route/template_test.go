package route

import (
	"strings"
	"testing"

	"sluice/test/verify"
)

type longPath struct{}

func (longPath) Variable(Variable) []byte { return make([]byte, 10_000) }

// An expansion ends soon after the length that no head may have.
func TestExpansionsAreBounded(t *testing.T) {
	template := verify.Result(ParseTemplate(strings.Repeat("$path", 100_000), NoGroups)).Must(t)
	n := len(template.Append(nil, longPath{}))
	verify.That(t, n > maxExpansion && n <= maxExpansion+10_000, "%d bytes", n)
}
