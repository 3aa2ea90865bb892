"""Video files and the lists that name them: list rows and RGB frames leave this room."""

from slowfast_maskfeat.videos.decode import available_backends, open_video
from slowfast_maskfeat.videos.index import VideoList, read_class_names, read_list
from slowfast_maskfeat.videos.video import DecodeError, Video
