package hostile

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Values are texts of which none describes instances, as in a key, but those with a Set.
func Values() []Case[string] {
	return append(hostsInValues(), []Case[string]{
		{Name: "an empty value", Answer: "", Reason: "empty"},
		{Name: "zeros", Large: true, Answer: strings.Repeat("\x00", 1<<20), Reason: "want"},
		{Name: "a line of megabytes", Large: true, Answer: strings.Repeat("a", 4<<20), Reason: "want"},
		{Name: "a million lines", Large: true, Answer: strings.Repeat("10.0.0.1:80\n", 1_000_000), Reason: "want at most 65536"},
		{Name: "a line twice", Answer: "10.0.0.1:80\n10.0.0.1:80", Reason: "is also in line 1"},
		{Name: "lists in each other", Large: true, Answer: strings.Repeat("[", 1<<20), Reason: "not a valid JSON list"},
		{Name: "objects in each other", Large: true, Answer: strings.Repeat(`{"meta":`, 1<<18), Reason: "not a valid JSON object"},
		{Name: "a negative weight", Answer: `{"host":"10.0.0.1","port":80,"weight":-1}`, Reason: "want 0 to 65535"},
		{Name: "a huge weight", Answer: `{"host":"10.0.0.1","port":80,"weight":65536}`, Reason: "want 0 to 65535"},
		{Name: "a weight of 1e30", Answer: `{"host":"10.0.0.1","port":80,"weight":1e30}`, Reason: "not a valid JSON object"},
		{Name: "a huge weight of a line", Answer: "10.0.0.1:80 weight=65536", Reason: "want weight=0 to weight=65535"},
		{Name: "port 0", Answer: "10.0.0.1:0", Reason: "want a number from 1 to 65535"},
		{Name: "a negative port", Answer: `{"host":"10.0.0.1","port":-1}`, Reason: "want a number from 1 to 65535"},
		{Name: "port 65536", Answer: `{"host":"10.0.0.1","port":65536}`, Reason: "want a number from 1 to 65535"},
		{Name: "a port that is a list", Answer: `{"host":"10.0.0.1","port":[80]}`, Reason: "want a number from 1 to 65535"},
		{Name: "tags of numbers", Answer: `{"host":"10.0.0.1","port":80,"tags":[1]}`, Reason: "not a valid JSON object"},
		{Name: "many tags", Large: true, Answer: fmt.Sprintf(`{"host":"10.0.0.1","port":%d,"tags":["a"%s]}`, Port("a"), strings.Repeat(`,"sluice.route=/a"`, 100_000)), Reason: "its tags and meta have"},
		{Name: "a tag of megabytes", Large: true, Answer: fmt.Sprintf(`{"host":"10.0.0.1","port":%d,"tags":[%q]}`, Port("a"), strings.Repeat("t", 4<<20)), Reason: "its tags and meta have"},
	}...)
}

func hostsInValues() (cases []Case[string]) {
	for _, host := range Hosts {
		if host == "10.0.0.1:80" {
			continue
		}
		text, err := json.Marshal(host)
		if err != nil {
			panic(err)
		}
		cases = append(cases, Case[string]{Name: fmt.Sprintf("the host %.20q", host), Large: len(host) > 1<<16, Answer: fmt.Sprintf(`{"host":%s,"port":80}`, text), Reason: "want a host name"})
	}
	return cases
}
