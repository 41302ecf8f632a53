"""python3 -m unittest discover -s devtools -p '*_test.py'"""

import unittest
import xml.dom.minidom

import trace_picture

TRACE = """[{"name":"process_name","ph":"M","pid":1,"args":{"name":"bothy"}},
{"name":"thread_name","ph":"M","pid":1,"tid":7,"args":{"name":"machine"}},
{"cat":"call","name":"CreateVM","ph":"b","id":1,"ts":0.5,"pid":1,"tid":1},
{"cat":"startup","name":"inner","ph":"X","ts":10.0,"dur":20.0,"pid":1,"tid":7},
{"cat":"startup","name":"outer <&>","ph":"X","ts":5.0,"dur":1000.0,"pid":1,"tid":7},
{"cat":"call","name":"CreateVM","ph":"e","id":1,"ts":1100.0,"pid":1,"tid":1},
{"cat":"call","name":"WaitVM","ph":"b","id":2,"ts":1200.0,"pid":1,"tid":1}"""


class TracePictureTest(unittest.TestCase):
    def test_reads_what_a_killed_process_leaves(self):
        self.assertEqual(trace_picture.read_events(TRACE), trace_picture.read_events(TRACE + "\n]\n"))
        self.assertEqual(len(trace_picture.read_events(TRACE)), 7)

    def test_a_row_a_thread_and_one_for_calls(self):
        rows, last = trace_picture.bars(trace_picture.read_events(TRACE))
        self.assertEqual(last, 1200.0)
        self.assertEqual([bar[3] for bar in rows["machine"]], ["inner", "outer <&>"])
        # One that hasn't ended lasts to the end.
        self.assertEqual(rows["calls"], [(0.5, 1100.0, "call", "CreateVM"), (1200.0, 1200.0, "call", "WaitVM")])

    def test_what_overlaps_stands_below(self):
        rows, _ = trace_picture.bars(trace_picture.read_events(TRACE))
        self.assertEqual([[bar[3] for bar in lane] for lane in trace_picture.lanes(rows["machine"])], [["outer <&>"], ["inner"]])

    def test_the_picture_is_xml(self):
        picture = xml.dom.minidom.parseString(trace_picture.draw(trace_picture.read_events(TRACE)))
        titles = [title.firstChild.data for title in picture.getElementsByTagName("title")]
        self.assertIn("outer <&>, 1.0 ms", titles)

    def test_what_begins_later_can_be_left_out(self):
        self.assertNotIn("WaitVM", trace_picture.draw(trace_picture.read_events(TRACE), 0.0, 1100.0))
        self.assertNotIn("inner", trace_picture.draw(trace_picture.read_events(TRACE), 100.0))


if __name__ == "__main__":
    unittest.main()
