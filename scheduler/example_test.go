package scheduler_test

import (
	"fmt"
	"time"

	"github.com/etcd-lifeboat/lifeboat/scheduler"
)

// The night before, Berlin's clocks skip the hour from 2 to 3.
func ExampleSchedule_Next() {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		fmt.Println(err)
		return
	}
	nightly, err := scheduler.ParseSchedule("30 2 * * *", scheduler.ScheduleOptions{Zone: berlin})
	if err != nil {
		fmt.Println(err)
		return
	}
	slot := time.Date(2026, 3, 28, 0, 0, 0, 0, berlin)
	for range 3 {
		slot = nightly.Next(slot)
		fmt.Println(slot.Format(time.RFC3339))
	}
	// Output:
	// 2026-03-28T02:30:00+01:00
	// 2026-03-29T03:00:00+02:00
	// 2026-03-30T02:30:00+02:00
}

func ExampleParseConfig() {
	_, err := scheduler.ParseConfig("lifeboat.yaml", []byte(`
repositories:
  disk: {url: /backup}
clusters:
  main: {endpoints: "10.0.0.1:2379"}
jobs:
  nightly:
    cluster: mian
    repositories: disk
    schedule: "30 2 * * *"
`))
	fmt.Println(err)
	// Output:
	// lifeboat.yaml:8:14: jobs.nightly.cluster: there is no cluster "mian"; did you mean main?
	//     8 |     cluster: mian
	//       |              ^
}
