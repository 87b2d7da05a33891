//go:build !race

package route

import "testing"

func TestMatchDoesNotAllocate(t *testing.T) {
	tab := largeTable(t, 1000)
	for _, request := range [][2]string{
		{"host7.example.com:80", "/api/v3/x?y"},
		{"A.Zone9.Example.com", `/x/..%2fapi/%763;p=1\x`},
		{"none", "/"},
	} {
		host, path := []byte(request[0]), []byte(request[1])
		if n := testing.AllocsPerRun(100, func() { tab.Match(host, path, nil) }); n != 0 {
			t.Errorf("host %q path %q: %v allocations", host, path, n)
		}
	}
}

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
