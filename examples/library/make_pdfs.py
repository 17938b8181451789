"""The three handbooks of an imaginary library, which the examples read: their text, and how the PDFs were made of it.

pip install fpdf2
python make_pdfs.py
"""

from datetime import datetime, timezone
from pathlib import Path

from fpdf import FPDF

HANDBOOKS = {
    "opening_hours": [
        """Rowan Street Library: opening hours

        The library is open from Tuesday to Friday, 10:00 to 19:00, and on Saturday from 9:00 to 14:00. On Sunday and
        Monday it is closed. The book drop beside the main door is open day and night.

        The reading room opens an hour before the library does. Enter it by the courtyard door and bring your own mug:
        tea is free until ten o'clock.

        Children under nine years are welcome at any time in the company of an adult. Story hour is on Wednesday at
        16:00, in the round room.""",
        """Holidays and closures

        The library closes on public holidays and between 24 December and 2 January. In August it is open in the morning
        only, from 9:00 to 13:00.

        After heavy snow we decide by 8:00 whether to open. The decision is on the answering machine, 555-0147.

        No loan falls due on a day on which the library is closed. The due date moves to the next open day.""",
    ],
    "borrowing_rules": [
        """Becoming a member

        Membership is free for everyone who lives, works or studies in Rowan. Bring an identity card or a passport and a
        letter that shows your address. Your library card is printed while you wait.

        A lost card is replaced for 3 euros. Tell the desk at once that it is lost, and nobody else can borrow with it.

        Young people under 16 need the signature of a parent or guardian.""",
        """Loans, renewals and late fees

        You may borrow up to twelve items at a time. Books are lent for four weeks, films and music for one week, and
        board games for two weeks.

        A loan can be renewed twice, at the desk or by telephone, unless another member has reserved the item.

        The late fee is 20 cents per item and day, and never more than 5 euros per item. Children's books have no late
        fee.

        A reservation costs nothing. A reserved book waits for you on the blue shelf for seven days.""",
        """Damaged and lost items

        Do not repair a torn page with adhesive tape: it turns yellow and tears the paper again. Bring the book to the
        desk, where our binder mends it with Japanese paper and paste.

        If you lose a book, you pay its price or bring another copy of the same edition. A book out of print is
        charged at 25 euros.

        Wet books should be put upright, with their pages fanned out, and brought back the same day.""",
    ],
    "tool_workshop": [
        """The tool library

        Members over 18 may borrow tools as well as books: drills, saws, ladders, sewing machines and a carpet cleaner.
        One tool at a time, for three days. A deposit of 20 euros is returned with the tool.

        Power tools are handed out with a short lesson. Bring closed shoes. Whoever has had the lesson once shows the
        stamp on the card the next time.

        Return a tool clean, dry and with everything that was in its case.""",
        """Care and repair of tools

        Sharpen a chisel on the wet stone, first on the grey side and then on the white, at an angle of 25 degrees.
        Remove the burr with a leather strop.

        If the cordless drill stops under load, its battery is too cold or empty. Charge it for 40 minutes on the green
        charger; the red charger is for the saw alone.

        Wipe saw blades with camellia oil against rust. Replace a blade that has lost more than two teeth.""",
        """Broken tools and the repair evening

        Report a broken tool with the yellow tag: write what happened, tie the tag to the handle, and put the tool in
        the crate beneath the stairs. Nobody pays for wear.

        The repair evening is on the first Thursday of the month, from 18:00 to 21:00, in the workshop. Volunteers help
        you to mend lamps, toasters, bicycles and clothes. Bring the thing and, if you have it, its manual.

        In an emergency press the red button at the workshop door. It cuts the power of all machines.""",
    ],
}


def write(name: str, pages: list[str]) -> None:
    """Write one handbook into this folder; equal texts give equal files."""
    pdf = FPDF(format=(148, 210))
    pdf.set_creation_date(datetime(2026, 1, 1, tzinfo=timezone.utc))
    pdf.set_title(f"Rowan Street Library: {name.replace('_', ' ')}")
    for page in pages:
        title, *paragraphs = page.split("\n\n")
        pdf.add_page()
        pdf.set_font("Helvetica", "B", 14)
        pdf.multi_cell(0, 8, title, new_x="LMARGIN", new_y="NEXT")
        pdf.set_font("Helvetica", "", 11)
        for paragraph in paragraphs:
            pdf.ln(3)
            pdf.multi_cell(0, 6, " ".join(paragraph.split()), align="L", new_x="LMARGIN", new_y="NEXT")
    pdf.output(str(Path(__file__).with_name(f"{name}.pdf")))


for handbook, texts in HANDBOOKS.items():
    write(handbook, texts)
