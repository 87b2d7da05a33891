package dns

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/test/dnstest"
)

func TestHostileAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dnstest.New()
		var records []dnstest.Record
		for n := range 1000 { // each target needs a query, which has no answer
			records = append(records, srv(fmt.Sprintf("t%d.example", n), "")...)
		}
		s.Set(records...)
		asked := 0 // for the SRV records
		s.Change(func(m *dnsmessage.Message) []byte {
			if m.Questions[0].Type != dnsmessage.TypeSRV {
				return nil
			}
			asked++
			bytes, _ := m.Pack()
			return bytes
		})
		w := watchServers(t, Options{}, s)
		defer w.end()
		begin := time.Now()
		time.Sleep(time.Minute)
		if queries, _ := s.Queries("tcp"); queries > 60 {
			t.Errorf("%d queries in %v", queries, time.Since(begin))
		}
		synctest.Wait()
		if asked < 4 {
			t.Errorf("the records were queried %d times in %v: the targets delay that", asked, time.Since(begin))
		}
		w.expect("")
	})
}

// Each SRV record of an answer may name a target with many addresses.
func TestTooManyInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dnstest.New()
		var addresses []dnstest.Record
		for n := range 101 {
			addresses = append(addresses, dnstest.Record{Name: "t.example", Address: fmt.Sprint("10.0.0.", n)})
		}
		s.Set(addresses...)
		s.Change(func(m *dnsmessage.Message) []byte {
			if q := m.Questions[0]; q.Type == dnsmessage.TypeSRV {
				m.RCode, m.Authorities = dnsmessage.RCodeSuccess, nil
				for n := range uint16(100) {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60},
						Body:   &dnsmessage.SRVResource{Target: dnsmessage.MustNewName("t.example."), Port: 1 + n, Weight: 1},
					})
				}
			}
			bytes, _ := m.Pack()
			return bytes
		})
		w := watchServers(t, Options{}, s)
		defer w.end()
		time.Sleep(time.Second)
		w.failing("SRV records of _star._tcp.example: more than 10000 instances")
		w.expect("")
	})
}
