package admin

import (
	"fmt"
	"strings"
	"time"
)

// verdict is the answer of /healthz and /readyz.
type verdict struct {
	OK     bool    `json:"ok"`
	Checks []check `json:"checks"`
}

// check is one thing that was looked at.
type check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // what is wrong
}

func (v *verdict) add(name, wrong string) {
	v.Checks = append(v.Checks, check{Name: name, OK: wrong == "", Detail: wrong})
	v.OK = v.OK && wrong == ""
}

// health says whether the process can keep its promises. It answers 503 from
// the first write or sync that failed to the end of the process.
func (src *Source) health() verdict {
	v := verdict{OK: true}
	wrong := ""
	if err := src.Failed(); err != nil {
		wrong = err.Error()
	}
	v.add("durable", wrong)
	return v
}

// readiness says whether clients can be served.
func (src *Source) readiness() verdict {
	v := src.health()
	stopping := ""
	if src.Stopping() {
		stopping = "the node is stopping"
	}
	v.add("running", stopping)
	if why := src.Waiting(); why != "" {
		v.add("cluster", why)
		return v
	}
	b := src.Broker()
	if b == nil {
		v.add("recovered", "the node is starting: it reads its journal")
		return v
	}
	v.add("recovered", "")
	s := b.Stats()
	var idle []string
	for _, sh := range s.Shards {
		if !sh.Leading && !sh.Led {
			idle = append(idle, fmt.Sprint(sh.ID))
		}
	}
	leading := ""
	if len(idle) > 0 {
		leading = "shards that nobody is known to lead: " + strings.Join(idle, ", ")
	}
	v.add("shards", leading)
	v.add("journal", src.stuck(s.Journal.CommitStarted))
	v.add("disk", src.diskWrong())
	return v
}

// stuck says since when the journal's disk has not answered, if that is long.
func (src *Source) stuck(began time.Time) string {
	if began.IsZero() {
		return ""
	}
	took := src.Now().Sub(began)
	if took <= src.CommitMax {
		return ""
	}
	return fmt.Sprintf("one commit of the journal has been running for %s (ready.commit.max is %s): the disk does not answer",
		took.Round(time.Millisecond), src.CommitMax)
}

func (src *Source) diskWrong() string {
	d := src.Disk()
	switch {
	case d.Err != nil:
		return "the disk's free space cannot be found out: " + d.Err.Error()
	case d.Refuses != "":
		return d.Refuses
	}
	return ""
}
