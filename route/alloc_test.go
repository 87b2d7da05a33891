//go:build !race

package route

import "testing"

// That holds for conditions, string prefixes and regular expressions too.
func TestMatchOfEveryShapeDoesNotAllocate(t *testing.T) {
	for _, s := range shapes {
		tab := s.table(t, 1000)
		hostText, pathText, r := s.request(1000)
		host, path := []byte(hostText), []byte(pathText)
		steady := newSteadyRequest(r)
		if tab.Match(host, path, steady) == nil {
			t.Errorf("%s: no route", s.name)
		}
		if n := testing.AllocsPerRun(100, func() { tab.Match(host, path, steady) }); n != 0 {
			t.Errorf("%s: %v allocations", s.name, n)
		}
	}
}
