//go:build !race

package route

import (
	"sluice/test/verify"
	"testing"
)

// That holds for conditions, string prefixes and regular expressions too.
func TestMatchOfEveryShapeDoesNotAllocate(t *testing.T) {
	for _, s := range shapes {
		tab := s.table(t, 1000)
		hostText, pathText, r := s.request(1000)
		host, path := []byte(hostText), []byte(pathText)
		steady := newSteadyRequest(r)
		verify.That(t, tab.Match(host, path, steady) != nil, "%s: no route", s.name)
		verify.Equal(t, testing.AllocsPerRun(100, func() { tab.Match(host, path, steady) }), 0, "%s: allocations", s.name)
	}
}
