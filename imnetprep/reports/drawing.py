"""What sheets of pictures are drawn with: colours, fonts for any script, images on trays."""

from unicodedata import combining, normalize

from PIL import Image, ImageFont, ImageOps

CELL_PX, GAP_PX = 144, 4
PAPER, INK, FAINT, TRAY = "#ffffff", "#1d232b", "#6b7684", "#eceff3"
# What systems have for other scripts than English: the built-in font has none.
_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "Arial Unicode.ttf")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def drawable(text: str, size_px: int) -> tuple[str, Font]:
    """A font with the characters of `text`; without one, a text of those of the built-in font."""
    default = ImageFont.load_default(size_px)
    for name in () if text.isascii() else _FONTS:
        try:
            font = ImageFont.truetype(name, size_px)
        except OSError:
            continue
        box = bytes(font.getmask("\U000ffffe"))  # of no character
        if not any(bytes(font.getmask(each)) == box for each in text):
            return text, font
    plain = "".join(each for each in normalize("NFKD", text) if not combining(each))
    return plain.encode("ascii", "backslashreplace").decode(), default


def paste_pair(
    sheet: Image.Image, pair: tuple[Image.Image, Image.Image], start: int, top: int
) -> None:
    """Put both pictures of a pair beside each other on `sheet`, each on a tray."""
    for half, image in enumerate(pair):
        tray = Image.new("RGB", (CELL_PX, CELL_PX), TRAY)
        picture = ImageOps.contain(image, tray.size, Image.Resampling.BICUBIC)
        tray.paste(picture, ((CELL_PX - picture.width) // 2, (CELL_PX - picture.height) // 2))
        sheet.paste(tray, (start + half * (CELL_PX + GAP_PX), top))


def fitted(text: str, font: Font, room_px: float) -> str:
    """`text`, cut with an ellipsis if it is wider than `room_px`."""
    if font.getlength(text) <= room_px:
        return text
    length = len(text)
    while length and font.getlength(text[:length].rstrip(" ,") + "…") > room_px:
        length -= 1
    return text[:length].rstrip(" ,") + "…"
